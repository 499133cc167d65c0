//! Which node a connection goes to, and what happens when that node is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::raw::{PATIENCE, RawTcp};
use forwarder_tests::server::recorder::{Connection, Recorder};
use forwarder_tests::site::{LISTENERS, route};

const NAME: &str = "record.example.org";
static NEXT_SOURCE: AtomicU16 = AtomicU16::new(0);

/// A lab with three nodes, each with a recorder on port 7000 unless it is to be dead.
struct Pool {
    lab: &'static Lab,
    recorders: Vec<Option<Recorder>>,
    _forwarder: Forwarder<'static>,
}

impl Pool {
    fn start(alive: [bool; 3], balance: &str, weights: [u16; 3]) -> Result<Self> {
        let lab: &'static Lab = Box::leak(Box::new(
            Lab::builder().tunnel(TunnelKind::Ethernet, 3).build()?,
        ));
        let recorders = lab
            .nodes
            .iter()
            .zip(alive)
            .map(|(node, alive)| {
                alive
                    .then(|| Recorder::start(&node.namespace, 7000))
                    .transpose()
            })
            .collect::<Result<Vec<_>>>()?;
        let nodes: Vec<String> = lab
            .nodes
            .iter()
            .zip(weights)
            .flat_map(|(node, weight)| {
                Family::BOTH.map(|family| {
                    format!(
                        "{{ address = \"{}\", weight = {weight} }}",
                        node.socket(family, 7000)
                    )
                })
            })
            .collect();
        let pool = format!(
            "[[pool]]\nname = \"record\"\nclient_address = \"transparent\"\nbalance = \"{balance}\"\nnodes = [{}]\n",
            nodes.join(", ")
        );
        let config = format!("{LISTENERS}\n{pool}\n{}", route(&[NAME], "record"));
        let forwarder = Forwarder::start(lab, &config)?;
        Ok(Self {
            lab,
            recorders,
            _forwarder: forwarder,
        })
    }

    /// A connection from some address: which node got it.
    fn connect(&self, family: Family, address: u8) -> Result<(RawTcp, usize, Connection)> {
        let client = &self.lab.clients[0];
        let port = 30_000 + NEXT_SOURCE.fetch_add(1, Ordering::Relaxed);
        let local = SocketAddr::new(client.raw_address(family, address), port);
        let mut raw = RawTcp::from(client, local, SocketAddr::new(self.lab.public(family), 443))?;
        raw.connect()?;
        let hello = Hello::small(NAME).record();
        raw.send_data(&hello)?;
        let begin = Instant::now();
        let mut again = Duration::from_millis(300);
        loop {
            for (node, recorder) in self.recorders.iter().enumerate() {
                let seen = recorder
                    .iter()
                    .flat_map(Recorder::connections)
                    .find(|c| c.peer == local);
                if let Some(connection) = seen.filter(|connection| connection.bytes == hello) {
                    return Ok((raw, node, connection));
                }
            }
            assert!(
                begin.elapsed() < PATIENCE * 2,
                "{family:?} from {local}: no node got the hello"
            );
            // The client's own timer moves things on, as a kernel's would.
            if begin.elapsed() > again {
                raw.send(&raw.data_at(0, &hello))?;
                again += Duration::from_millis(300);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many of so many connections from different addresses each node gets.
    fn spread(&self, family: Family, count: u8) -> Result<[usize; 3]> {
        let mut counts = [0; 3];
        for address in 0..count {
            counts[self.connect(family, address)?.1] += 1;
        }
        Ok(counts)
    }
}

#[test]
fn a_node_that_refuses_is_skipped() -> Result<()> {
    let pool = Pool::start([true, false, false], "source", [1, 1, 1])?;
    for family in Family::BOTH {
        assert_eq!(pool.spread(family, 20)?, [20, 0, 0]);
    }
    Ok(())
}

#[test]
fn a_silent_node_is_skipped() -> Result<()> {
    let pool = Pool::start([true, true, false], "source", [1, 1, 1])?;
    // Not even a reset comes from a node whose link is down.
    pool.lab.nodes[1].namespace.ip("link set lan0 down")?;
    pool.lab.nodes[2].namespace.ip("link set lan0 down")?;
    for family in Family::BOTH {
        assert_eq!(pool.spread(family, 8)?, [8, 0, 0]);
    }
    Ok(())
}

#[test]
fn with_all_nodes_dead_the_client_is_told() -> Result<()> {
    let pool = Pool::start([false, false, false], "source", [1, 1, 1])?;
    for family in Family::BOTH {
        let client = &pool.lab.clients[0];
        let mut raw = RawTcp::new(client, SocketAddr::new(pool.lab.public(family), 443))?;
        raw.connect()?;
        let hello = Hello::small(NAME).record();
        raw.send_data(&hello)?;
        // Every node refuses at once, and so does the entrance.
        raw.expect("a reset", |segment| segment.flags.has(Flags::RST))?;
        let recovered = Recorder::start(&pool.lab.nodes[0].namespace, 7000)?;
        // Once a node is back, new connections work again.
        let mut raw = RawTcp::new(client, SocketAddr::new(pool.lab.public(family), 443))?;
        raw.connect()?;
        raw.send_data(&hello)?;
        let begin = Instant::now();
        while !recovered
            .connections()
            .iter()
            .any(|c| c.peer == raw.local && c.bytes == hello)
        {
            assert!(
                begin.elapsed() < PATIENCE * 2,
                "the node that came back got nothing"
            );
            raw.receive(Duration::from_millis(300))?;
            raw.send(&raw.data_at(0, &hello))?;
        }
    }
    Ok(())
}

#[test]
fn one_client_stays_with_one_node_by_source() -> Result<()> {
    let pool = Pool::start([true; 3], "source", [1, 1, 1])?;
    for family in Family::BOTH {
        for address in 0..6 {
            let mut nodes = BTreeMap::<usize, usize>::new();
            for _ in 0..5 {
                *nodes.entry(pool.connect(family, address)?.1).or_default() += 1;
            }
            assert_eq!(
                nodes.len(),
                1,
                "address {address} of {family:?} went to {nodes:?}"
            );
        }
        let counts = pool.spread(family, 60)?;
        assert!(
            counts.iter().all(|count| *count >= 6),
            "different clients use all nodes: {counts:?}"
        );
    }
    Ok(())
}

#[test]
fn random_balance_spreads_one_client_and_weights_count() -> Result<()> {
    let pool = Pool::start([true; 3], "random", [1, 1, 4])?;
    let mut counts = [0_usize; 3];
    for _ in 0..120 {
        counts[pool.connect(Family::V4, 1)?.1] += 1;
    }
    // Expected 20, 20 and 80; five standard deviations leave 0..40 and 54..106.
    assert!(
        counts[0] > 2 && counts[1] > 2 && counts[2] > 54,
        "{counts:?}"
    );
    assert!(
        counts[0] < 45 && counts[1] < 45 && counts[2] < 106,
        "{counts:?}"
    );
    Ok(())
}
