//! What a reload accepts, the next start accepts: configurations grow and shrink at random over maps of one size.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Routes, nodes of each pool, listeners, and names of each route.
#[derive(Clone, Debug)]
struct Shape {
    nodes: Vec<u8>,
    listeners: u8,
    names: u8,
    /// Added to names and addresses, so that one shape may have nothing in common with the next.
    base: u8,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        prop::collection::vec(1..6_u8, 1..40),
        1..4_u8,
        1..6_u8,
        0..3_u8,
    )
        .prop_map(|(nodes, listeners, names, base)| Shape {
            nodes,
            listeners,
            names,
            base,
        })
}

impl Shape {
    fn config(&self) -> Config {
        let base = self.base;
        let mut text = String::from("[entrance]\npublic = [\"eth0\"]\ntunnels = [\"wg0\"]\n");
        for listener in 0..self.listeners {
            let port = 443 + u16::from(listener);
            writeln!(
                text,
                "[[listener]]\nname = \"l{listener}\"\nprotocol = \"tls\"\nport = {port}"
            )
            .unwrap();
        }
        for (pool, nodes) in self.nodes.iter().enumerate() {
            let nodes: Vec<_> = (0..*nodes)
                .map(|node| format!("\"10.{base}.{pool}.{}:443\"", node + 1))
                .collect();
            let names: Vec<_> = (0..self.names)
                .map(|name| format!("\"n{name}.r{pool}.b{base}.example.org\""))
                .collect();
            writeln!(
                text,
                "[[pool]]\nclient_address = \"transparent\"\nname = \"p{pool}\"\nnodes = [{}]\n[[route]]\nnames = [{}]\npool = \"p{pool}\"",
                nodes.join(", "),
                names.join(", ")
            )
            .unwrap();
        }
        let outcome = crate::config::parse(Path::new("grown.toml"), &text);
        outcome
            .config
            .unwrap_or_else(|| panic!("{}", outcome.report.render(false)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_reload_accepts_a_start_accepts(shapes in prop::collection::vec(shape(), 1..8)) {
        let network = Network::default();
        let weights = Weights::default();
        // Small enough that some of them do not fit.
        let made = Sizes {
            paths: 128,
            nodes: 64,
            pools: 64,
            names: 256,
            ..Sizes::of(&shapes[0].config())
        };
        let by_map = made.by_map();
        let pinned = |name: &str| {
            let mut maps = by_map.iter();
            maps.find(|(own, _)| *own == name).map(|(_, size)| *size)
        };
        let mut registry = Registry::default();
        for shape in &shapes {
            let config = shape.config();
            let Ok((_, numbered)) = fit(&config, &network, &registry, &made, &weights) else {
                continue;
            };
            registry = numbered;
            let text = serde_json::to_vec(&registry).unwrap();
            let read: Registry = serde_json::from_slice(&text).unwrap();
            let sizes = Sizes::of(&config).with(pinned);
            prop_assert_eq!(&sizes, &made);
            let started = fit(&config, &network, &read, &sizes, &weights);
            prop_assert!(started.is_ok(), "{:?}", started.err());
        }
    }
}

#[test]
fn little_room_is_told_before_there_is_none() {
    let tight = |count| {
        Occupancy {
            what: "paths",
            count,
            room: 1_024,
        }
        .is_tight()
    };
    assert!(!tight(819) && tight(820) && tight(1_024));
}
