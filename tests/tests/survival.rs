//! Everything may happen to the daemon, and nothing to the flows: a thousand of them, with traffic that both
//! ends check, and new ones all the while.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::command::run;
use forwarder_tests::error::Context;
use forwarder_tests::forwarder::{Forwarder, program};
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::process::wait_until;
use forwarder_tests::site::{LISTENERS, route};
use forwarder_tests::talk::{Answerer, Conversation, Crowd, Newcomers, raise_file_limit};

/// Flows that must live through everything.
const FLOWS: usize = 1_000;
/// Records that each of them exchanges after every event.
const ROUNDS: u64 = 2;
const PLAIN: u16 = 7_100;
const PROXIED: u16 = 7_101;
/// Health that follows soon.
const QUICK: &str =
    "health = { check = \"tcp\", interval = \"300ms\", timeout = \"2s\", fall = 2 }\n";

/// Two nodes behind one name each for three modes; `weight` is that of the second one.
fn configuration(lab: &Lab, weight: u32, extra: &[&str]) -> String {
    let pool = |name: &str, mode: &str, port: u16| {
        let node = |at: usize, family: Family, weight: u32| {
            let address = lab.nodes[at].socket(family, port);
            format!(
                "{{ name = \"{name}{at}{family:?}\", address = \"{address}\", weight = {weight} }}"
            )
        };
        let nodes: Vec<String> = Family::BOTH
            .into_iter()
            .flat_map(|family| [node(0, family, 2), node(1, family, weight)])
            .collect();
        format!(
            "[[pool]]\nname = \"{name}\"\nclient_address = \"{mode}\"\nbalance = \"random\"\nnodes = [{}]\n{QUICK}",
            nodes.join(", ")
        )
    };
    let mut names = vec!["plain.example.org"];
    names.extend(extra);
    [
        LISTENERS.to_owned(),
        pool("plain", "transparent", PLAIN),
        pool("proxied", "proxy-v2", PROXIED),
        pool("masked", "masquerade", PLAIN),
        route(&names, "plain"),
        route(&["proxied.example.org"], "proxied"),
        route(&["masked.example.org"], "masked"),
    ]
    .join("\n")
}

/// Everything at work.
struct Busy {
    forwarder: Forwarder<'static>,
    lab: &'static Lab,
    answerers: Vec<Answerer>,
    crowd: Crowd,
    newcomers: Newcomers,
    events: Vec<(String, Duration)>,
}

impl Busy {
    fn start() -> Result<Self> {
        Self::start_program(program()?)
    }

    fn start_program(program: PathBuf) -> Result<Self> {
        raise_file_limit().context(|| "raising the limit of open files".to_owned())?;
        let lab: &'static Lab = Box::leak(Box::new(
            Lab::builder()
                .clients(2)
                .tunnel(TunnelKind::Ethernet, 2)
                .build()?,
        ));
        let nodes = lab.nodes.iter();
        let answerers = nodes.flat_map(|node| {
            [(PLAIN, false), (PROXIED, true)]
                .map(|(port, proxied)| Answerer::start(&node.namespace, port, proxied))
        });
        let answerers = answerers.collect::<Result<Vec<_>>>()?;
        let forwarder = Forwarder::start_program(lab, &configuration(lab, 2, &[]), program)?;
        let ways: Vec<(SocketAddr, String)> = Family::BOTH
            .into_iter()
            .flat_map(|family| {
                let entrance = SocketAddr::new(lab.public(family), 443);
                ["plain", "proxied", "masked"].map(|name| (entrance, format!("{name}.example.org")))
            })
            .collect();
        let many = ways.iter().cycle().take(FLOWS).cloned().collect();
        let crowd = Crowd::start(&lab.clients[0].namespace, many, Duration::from_millis(250))?;
        let newcomers =
            Newcomers::start(&lab.clients[1].namespace, ways, Duration::from_millis(20))?;
        Ok(Self {
            forwarder,
            lab,
            answerers,
            crowd,
            newcomers,
            events: Vec::new(),
        })
    }

    /// Lets something happen, and the traffic go on.
    fn event(&mut self, what: &str, happen: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        happen(self)?;
        self.crowd.rounds(ROUNDS)?;
        self.events.push((what.to_owned(), begin.elapsed()));
        self.sound(what);
        Ok(())
    }

    fn sound(&self, after: &str) {
        let mut failures = self.crowd.failures();
        failures.extend(self.newcomers.failures());
        failures.extend(self.answerers.iter().flat_map(Answerer::failures));
        assert!(
            failures.is_empty(),
            "after {after}: {} failures:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }

    fn reload(&self, weight: u32, extra: &[&str]) -> Result<()> {
        self.forwarder
            .write_config(&configuration(self.lab, weight, extra))?;
        run(self.forwarder.command()?.arg("reload")).map(drop)
    }

    fn verb(&self, words: &[&str]) -> Result<()> {
        run(self.forwarder.command()?.args(words)).map(drop)
    }

    /// Waits until the second node's plain port is in a state.
    fn second_is(&self, state: &str) -> Result<()> {
        let address = self.lab.nodes[1].socket(Family::V4, PLAIN).to_string();
        wait_until(
            &format!("{address} being {state}"),
            Duration::from_secs(20),
            || {
                let status = self.forwarder.status().unwrap_or_default();
                let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
                nodes
                    .iter()
                    .any(|node| node["address"] == *address && node["health"][0]["state"] == *state)
            },
        )
    }
}

#[test]
fn a_thousand_flows_outlive_everything_that_happens_to_the_daemon() -> Result<()> {
    let begin = Instant::now();
    let mut busy = Busy::start()?;
    println!("{FLOWS} flows open after {:.1?}", begin.elapsed());
    let open = busy.forwarder.status()?["flows"]["open"].as_u64();
    assert!(open >= Some(FLOWS as u64), "{open:?}");

    for _ in 0..2 {
        busy.event("kill -9 and start", |busy| {
            busy.forwarder.kill()?;
            busy.crowd.rounds(1)?;
            busy.forwarder.run()
        })?;
    }
    busy.event("stop, upgrade and start", |busy| {
        let copy = busy.lab.folder().join("forwarder-2");
        std::fs::copy(program()?, &copy).context(|| "copying the program".to_owned())?;
        busy.forwarder.stop();
        busy.forwarder.upgrade(&copy);
        busy.forwarder.run()
    })?;
    busy.event("kill -9 in the middle of starting", |busy| {
        busy.forwarder.kill()?;
        // When the first interface has the new programs, and when all have them.
        for interfaces in [1, 3] {
            busy.forwarder
                .run_and_kill(|log| log.matches("attached").count() >= interfaces)?;
        }
        busy.forwarder.run()
    })?;
    busy.event("reload: routes come and go, weights change", |busy| {
        busy.reload(7, &["one.example.org", "*.two.example.org"])?;
        busy.reload(1, &["*.two.example.org"])?;
        busy.reload(2, &[])
    })?;
    busy.event("edits: a route, a weight, a drained node", |busy| {
        busy.verb(&["route", "add", "three.example.org", "--pool", "plain"])?;
        busy.verb(&["node", "weight", "plain1V4", "9"])?;
        busy.verb(&["node", "drain", "plain1V4"])?;
        busy.crowd.rounds(1)?;
        busy.verb(&["node", "ready", "plain1V4"])?;
        busy.verb(&["route", "rm", "three.example.org"])
    })?;
    busy.event("a node goes down and comes back", |busy| {
        // A connection that is in the accept queue of a closing listener is lost whoever forwards it.
        let newcomers = &busy.newcomers;
        newcomers.between(|| busy.answerers[2].close());
        busy.second_is("down")?;
        busy.crowd.rounds(1)?;
        busy.answerers[2].listen(&busy.lab.nodes[1].namespace)?;
        busy.second_is("up")
    })?;
    busy.event("kill -9 in the middle of reloading", |busy| {
        for (ms, names) in [(2, "four.example.org"), (20, "five.example.org")] {
            busy.forwarder
                .write_config(&configuration(busy.lab, 1 + ms, &[names]))?;
            busy.forwarder
                .daemon()
                .expect("it runs")
                .signal(libc::SIGHUP);
            std::thread::sleep(Duration::from_millis(u64::from(ms)));
            busy.forwarder.kill()?;
            busy.forwarder.run()?;
        }
        Ok(())
    })?;

    let open = busy.forwarder.status()?["flows"]["open"].as_u64();
    assert!(open >= Some(FLOWS as u64), "{open:?}");
    for (what, took) in &busy.events {
        println!("{what}: {took:.1?}");
    }
    println!(
        "{FLOWS} flows, {} records each and as many answers, every byte right; slowest round {:?}",
        busy.crowd.completed(),
        busy.crowd.slowest()
    );
    println!(
        "{} new connections meanwhile, none refused; slowest {:?}; {:.1?} in all",
        busy.newcomers.count(),
        busy.newcomers.slowest(),
        begin.elapsed()
    );
    assert!(busy.newcomers.count() > 50);
    Ok(())
}

/// Conversations that never pause, a hundred records under way each way.
struct Bulk {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<u64>>>,
}

impl Bulk {
    fn start(lab: &Lab) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let mut threads = Vec::new();
        for family in Family::BOTH {
            for name in ["plain", "proxied"] {
                let entrance = SocketAddr::new(lab.public(family), 443);
                let open = || Conversation::open(entrance, &format!("{name}.example.org"));
                let conversation = lab.clients[0].namespace.enter(open)?;
                let mut conversation = conversation.context(|| "opening it".to_owned())?;
                let stop = Arc::clone(&stop);
                threads.push(std::thread::spawn(move || {
                    let mut count = 0;
                    (0..100).try_for_each(|_| conversation.ask())?;
                    while !stop.load(Ordering::Relaxed) {
                        conversation.ask()?;
                        conversation.hear()?;
                        count += 1;
                    }
                    Ok(count)
                }));
            }
        }
        Ok(Self { stop, threads })
    }

    /// How many records were answered, all of them rightly.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        let counts = threads.map(|thread| thread.join().expect("no panic").expect("no byte lost"));
        counts.sum()
    }
}

/// From a version with another layout of the maps, whose program `FORWARDER_BEFORE` names: `cargo xtask upgrade-from`
/// builds one and runs this.
#[test]
#[ignore = "needs the program of an earlier version; see `cargo xtask upgrade-from`"]
fn a_thousand_flows_outlive_a_change_of_the_layout() -> Result<()> {
    let before = std::env::var_os("FORWARDER_BEFORE").expect("FORWARDER_BEFORE names a program");
    let mut busy = Busy::start_program(PathBuf::from(before))?;
    let lab = busy.lab;
    let former = busy.forwarder.bpffs().to_owned();
    let versions = || {
        let files = std::fs::read_dir(&former).into_iter().flatten().flatten();
        let mut names: Vec<_> = files.map(|file| file.file_name()).collect();
        names.sort();
        names
    };
    let [first] = &versions()[..] else {
        panic!("one layout, not {:?}", versions())
    };
    let open = |busy: &Busy| {
        busy.forwarder
            .status()
            .map(|own| own["flows"]["open"].as_u64())
    };
    assert!(open(&busy)? >= Some(FLOWS as u64), "{:?}", open(&busy)?);

    let bulk = Bulk::start(lab)?;
    busy.event("stop and start of the new version", |busy| {
        busy.forwarder.stop();
        busy.forwarder.upgrade(&program()?);
        // Killed in the middle of it, twice: when it is about to attach, and when flows were carried over.
        busy.forwarder
            .run_and_kill(|log| log.contains("maps written"))?;
        busy.crowd.rounds(1)?;
        busy.forwarder
            .run_and_kill(|log| log.contains("carried over"))?;
        busy.crowd.rounds(1)?;
        busy.forwarder.run()
    })?;
    assert_eq!(versions().len(), 2, "both are there for a while");
    busy.event("while both run", |_| Ok(()))?;
    wait_until(
        "the former version being gone",
        Duration::from_secs(100),
        || !versions().contains(first),
    )?;
    busy.event("when the former version is gone", |_| Ok(()))?;
    assert!(open(&busy)? >= Some(FLOWS as u64), "{:?}", open(&busy)?);
    let bulk = bulk.finish();
    for (what, took) in &busy.events {
        println!("{what}: {took:.1?}");
    }
    println!(
        "{FLOWS} flows, {} records, slowest round {:?}; {bulk} records in bulk; {} new connections, slowest {:?}",
        busy.crowd.completed(),
        busy.crowd.slowest(),
        busy.newcomers.count(),
        busy.newcomers.slowest()
    );
    assert!(busy.newcomers.count() > 50);
    Ok(())
}
