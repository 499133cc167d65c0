//! Which listed name a hello meets: exact ones before wildcards, the longest wildcard first, each table for itself.

use forwarder_common::verdict::DropReason;
use forwarder_tests::hello::Hello;
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::Client;
use forwarder_tests::programs::entrance::NAME_TABLE;
use forwarder_tests::programs::shape::Refusal;

/// The number of the listed name that a new connection got; `None` if none is listed.
#[track_caller]
fn met(bench: &mut Bench, name: &str) -> Option<u32> {
    let client = Client::connect(bench, Refusal::Drop);
    let seen = client.send(bench, 0, &Hello::small(name).record());
    let flow = bench.flow(client.address, Refusal::Drop);
    if flow.is_none() {
        seen.dropped(DropReason::UnlistedName);
    }
    flow.map(|flow| flow.name)
}

/// A name of so many bytes.
fn long(length: usize) -> String {
    let mut name = "a.".repeat(length / 2);
    if length.is_multiple_of(2) {
        name.replace_range(length - 1.., "b");
    } else {
        name.push('b');
    }
    assert_eq!(name.len(), length);
    name
}

#[test]
fn the_most_specific_name_decides() {
    let mut bench = Bench::new();
    for (text, number) in [
        ("*.example.net", 1),
        ("*.deep.example.net", 2),
        ("www.example.net", 3),
        ("deep.example.net", 4),
        ("x.deep.example.net", 5),
        ("example.net", 6),
    ] {
        bench.list(NAME_TABLE, text, number);
    }
    for (name, number) in [
        ("www.example.net", Some(3)),
        ("WWW.Example.NET", Some(3)),
        ("a.www.example.net", Some(1)),
        ("ww.example.net", Some(1)),
        ("wwww.example.net", Some(1)),
        ("deep.example.net", Some(4)),
        ("X.DEEP.example.net", Some(5)),
        ("y.deep.example.net", Some(2)),
        ("a.x.deep.example.net", Some(2)),
        ("example.net", Some(6)),
        ("xexample.net", None),
        ("example.ne", None),
        ("net", None),
        ("www.example.net.org", None),
    ] {
        assert_eq!(met(&mut bench, name), number, "{name}");
    }
    bench.list(NAME_TABLE, "*", 7);
    assert_eq!(met(&mut bench, "net"), Some(7));
    assert_eq!(met(&mut bench, "y.deep.example.net"), Some(2));
}

/// Of each length, with what is left of longer names behind it in the buffer that names are reversed in.
#[test]
fn names_of_every_length_are_found() {
    let mut bench = Bench::new();
    let lengths = || (1..=253_usize).rev().filter(|at| *at < 20 || *at > 240);
    for length in lengths() {
        bench.list(NAME_TABLE, &long(length), length as u32);
    }
    for length in lengths() {
        let name = long(length);
        assert_eq!(met(&mut bench, &name), Some(length as u32), "{name}");
        let other = format!("c{}", &name[1..]);
        assert_eq!(met(&mut bench, &other), None, "{other}");
    }
}

#[test]
fn tables_do_not_see_each_other() {
    let mut bench = Bench::new();
    let other = NAME_TABLE + 1;
    bench.list(other, "there.example.net", 1);
    bench.list(other, "*.there.example.net", 2);
    bench.list(other, "*", 3);
    assert_eq!(met(&mut bench, "there.example.net"), None);
    assert_eq!(met(&mut bench, "a.there.example.net"), None);
    bench.list(NAME_TABLE, "*.there.example.net", 4);
    bench.list(NAME_TABLE, "there.example.net", 5);
    assert_eq!(met(&mut bench, "there.example.net"), Some(5));
    assert_eq!(met(&mut bench, "a.there.example.net"), Some(4));
    assert_eq!(met(&mut bench, "elsewhere.example.net"), None);
}
