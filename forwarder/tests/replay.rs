//! The fuzz targets of the daemon: kept inputs, every crash so far, and a short search.

#[path = "../../fuzz/src/search.rs"]
mod search;
#[path = "../../fuzz/src/daemon/mod.rs"]
mod targets;

use search::Search;

#[test]
fn config() {
    Search {
        name: "config",
        target: targets::config,
        beside: &["forwarder/tests/check", "packaging"],
        rounds: 4_000,
    }
    .run(50);
}

#[test]
fn control() {
    Search {
        name: "control",
        target: targets::control,
        beside: &[],
        rounds: 4_000,
    }
    .run(20);
}
