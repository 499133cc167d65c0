//! Benches use one another's programs: nothing that one leaves behind reaches the next.

use forwarder_common::abi::map;
use forwarder_tests::packet::Flags;
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::blank::KeyAndValue;
use forwarder_tests::programs::client::Client;
use forwarder_tests::programs::kernel::Kernel;
use forwarder_tests::programs::shape::{Mode, Refusal, Shape};

type Contents = Vec<(String, Vec<KeyAndValue>)>;

/// What is in every map.
fn contents(bench: &Bench) -> Contents {
    let maps = bench.any_maps().unwrap().into_iter();
    maps.map(|own| (own.name.clone(), own.contents().unwrap()))
        .collect()
}

/// Each map that a program uses is soiled and emptied, also one that was added after this was written.
#[test]
fn every_map_is_emptied() {
    let kernel = Kernel::load(&[(map::HELLOS, 8), (map::FLOWS, 64)]).unwrap();
    let maps = kernel.maps().unwrap();
    for own in &maps {
        let soiled = own.soil().unwrap();
        assert_eq!(soiled, !own.contents().unwrap().is_empty(), "{}", own.name);
        let may_not = [map::EVENTS, map::STAGES].contains(&own.name.as_str());
        assert_eq!(soiled, !may_not, "{}", own.name);
    }
    kernel.empty_maps().unwrap();
    for own in &maps {
        assert_eq!(own.contents().unwrap(), [], "{}", own.name);
    }
}

/// Of a size that no other test has, so that the same programs come back.
#[test]
fn a_bench_that_was_used_is_as_a_new_one() {
    let bench = || Bench::sized(&[(map::REVERSE, 4_095)]);
    let mut first = bench();
    let new = contents(&first);
    for home in [true, false] {
        first.reshape(Shape {
            home,
            ..Shape::COMMON
        });
        for mode in Mode::ALL {
            let opened = Client::open(&mut first, mode);
            opened.splice(&mut first);
            let ended = Client::open(&mut first, mode);
            ended.splice(&mut first);
            first.from_client(&ended.from_client(Flags::RST, 0, 0, &[]));
            let begun = Client::connect(&mut first, Refusal::Alert);
            begun.send(&mut first, 0, &[22, 3, 1]);
            let mut stray = Client::new(&mut first, Refusal::Alert);
            stray.forge();
            stray.send(&mut first, 0, &[22, 3, 1]);
        }
    }
    let used = contents(&first);
    let changed = used.iter().zip(&new).filter(|(one, other)| one != other);
    let names: Vec<_> = changed.map(|(own, _)| own.0.as_str()).collect();
    for name in [
        map::FLOWS,
        map::HELLO_INDEX,
        map::CLOSED,
        map::DROPS,
        "NEXT_HOPS",
        "WORK",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    drop(first);
    let mut second = bench();
    for (own, before) in contents(&second).iter().zip(&new) {
        assert_eq!(own, before, "{}", own.0);
    }
    assert_eq!(second.maps.events().len(), 0);
}
