//! The fuzz targets of this crate: kept inputs, every crash so far, and a short search.

#[path = "../../fuzz/src/search.rs"]
mod search;
#[path = "../../fuzz/src/pure/mod.rs"]
mod targets;

use search::Search;

/// A search without inputs beside the target's own.
const fn search(name: &str, target: fn(&[u8]), rounds: u32) -> Search<'_> {
    Search {
        name,
        target,
        beside: &[],
        rounds,
    }
}

#[test]
fn hello() {
    let search = Search {
        beside: &["forwarder-common/tests/hello/captured"],
        ..search("hello", targets::hello, 1_000)
    };
    search.run(50);
}

#[test]
fn name() {
    search("name", targets::name, 20_000).run(20);
}

#[test]
fn options() {
    search("options", targets::options, 20_000).run(20);
}

#[test]
fn flow() {
    search("flow", targets::flow, 20_000).run(20);
}

#[test]
fn talk() {
    search("talk", targets::talk, 20_000).run(20);
}

#[test]
fn proxy() {
    search("proxy", targets::proxy, 10_000).run(10);
}
