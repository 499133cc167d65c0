//! A node dies in mid-traffic, or the entrance itself: how long until clients are served again, and what
//! becomes of open flows. The figures are printed; the bounds are generous, for busy machines.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::command::{find_own, run};
use forwarder_tests::error::Context;
use forwarder_tests::forwarder::{Forwarder, entrance_section};
use forwarder_tests::lab::{Family, Lab, Node, TunnelKind};
use forwarder_tests::process::{Daemon, wait_until};
use forwarder_tests::site::{LISTENERS, route};
use forwarder_tests::talk::{Answerer, Conversation};
use forwarder_tests::wire::{Fate, Faults};
use serde_json::Value;

const NAME: &str = "www.example.org";
const PORT: u16 = 7_200;
/// Flows that are open when it happens.
const FLOWS: usize = 60;
/// Clients that open connections meanwhile.
const CROWD: usize = 8;
/// More than anything here takes on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(30);

/// Two nodes whose servers are processes of their own.
struct Place {
    lab: &'static Lab,
    servers: [Option<Daemon>; 2],
}

impl Place {
    fn build() -> Result<Self> {
        let builder = Lab::builder().tunnel(TunnelKind::Ethernet, 2);
        let lab: &'static Lab = Box::leak(Box::new(builder.tunnel_wires().build()?));
        let [first, second] = [&lab.nodes[0], &lab.nodes[1]];
        Ok(Self {
            lab,
            servers: [Some(serve(lab, first)?), Some(serve(lab, second)?)],
        })
    }

    fn forwarder(&self, keys: &str) -> Result<Forwarder<'static>> {
        let nodes = self.lab.nodes.iter();
        let addresses: Vec<String> = nodes
            .map(|node| node.socket(Family::V4, PORT).to_string())
            .collect();
        let pool = format!(
            "[[pool]]\nclient_address = \"transparent\"\nname = \"talk\"\nbalance = \"random\"\nnodes = {addresses:?}\n{keys}"
        );
        Forwarder::start(
            self.lab,
            &format!("{LISTENERS}\n{pool}\n{}", route(&[NAME], "talk")),
        )
    }

    fn open(&self) -> Result<Conversation> {
        let entrance = SocketAddr::new(self.lab.public(Family::V4), 443);
        let open = || {
            let mut own = Conversation::open(entrance, NAME)?;
            own.exchange()?;
            Ok::<_, std::io::Error>(own)
        };
        let opened = self.lab.clients[0].namespace.enter(open)?;
        opened.context(|| "opening a conversation".to_owned())
    }

    /// Open conversations, those of the first node and those of the second.
    fn flows(&self, forwarder: &Forwarder<'_>) -> Result<[Vec<Conversation>; 2]> {
        let all = (0..FLOWS)
            .map(|_| self.open())
            .collect::<Result<Vec<_>>>()?;
        let listed = run(forwarder.command()?.args(["flow", "ls", "--json"]))?;
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let second = self.lab.nodes[1].socket(Family::V4, PORT).to_string();
        let on_second = |own: &Conversation| {
            let local = own
                .local()
                .map(|local| local.to_string())
                .unwrap_or_default();
            let flows = listed["flows"].as_array().expect("a list");
            let flow = flows.iter().find(|flow| flow["client"] == *local);
            flow.expect("it is listed")["node_address"] == *second
        };
        let (other, first): (Vec<_>, Vec<_>) = all.into_iter().partition(on_second);
        assert!(!first.is_empty() && !other.is_empty());
        Ok([first, other])
    }

    fn is(&self, forwarder: &Forwarder<'_>, node: usize, state: &str) -> bool {
        let address = self.lab.nodes[node].socket(Family::V4, PORT).to_string();
        let status = forwarder.status().unwrap_or_default();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes
            .iter()
            .any(|own| own["address"] == *address && own["health"][0]["state"] == *state)
    }

    /// How long it took from `begin` until a node was in a state.
    fn wait(
        &self,
        forwarder: &Forwarder<'_>,
        node: usize,
        state: &str,
        begin: Instant,
    ) -> Result<Duration> {
        wait_until(&format!("node {node} being {state}"), SOON, || {
            self.is(forwarder, node, state)
        })?;
        Ok(begin.elapsed())
    }

    /// Connects until it has worked quickly ten times in a row. Returns when the first attempt after `begin`
    /// was served, when the last slow one was, and how long the slowest took.
    fn recovery(&self, begin: Instant) -> Result<[Duration; 3]> {
        let (mut first, mut slow, mut slowest) = (None, Duration::ZERO, Duration::ZERO);
        let mut row = 0;
        while row < 10 {
            let attempt = Instant::now();
            drop(self.open()?);
            let took = attempt.elapsed();
            first.get_or_insert(begin.elapsed());
            slowest = slowest.max(took);
            row += 1;
            if took > Duration::from_millis(150) {
                (slow, row) = (begin.elapsed(), 0);
            }
            assert!(begin.elapsed() < SOON, "still slow: {took:?}");
        }
        Ok([first.unwrap_or_default(), slow, slowest])
    }

    /// Does something while others open connections, all of which must be served in the end: those too that
    /// wait for a node as it is found to be dead.
    fn in_a_crowd<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let over = AtomicBool::new(false);
        let open = || -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                drop(self.open()?);
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let crowd: Vec<_> = (0..CROWD).map(|_| scope.spawn(open)).collect();
            let done = work();
            // What is ended by order is ended soon after it is said.
            std::thread::sleep(Duration::from_millis(300));
            over.store(true, Ordering::Relaxed);
            for one in crowd {
                one.join().expect("it does not panic")?;
            }
            done
        })
    }

    fn silence(&self, node: usize) {
        self.lab.nodes[node].wire().set_rule(|_, _| Fate::Lose);
    }
}

fn serve(lab: &Lab, node: &Node) -> Result<Daemon> {
    let mut command = node.namespace.command(find_own("lab-server")?)?;
    command.args(["--talk", "--port", &PORT.to_string()]);
    let log = lab
        .folder()
        .join(format!("{}-talk.log", node.namespace.name()));
    let daemon = Daemon::start("lab-server", command, &log)?;
    let address = node.socket(Family::V4, PORT);
    daemon.wait_until("listening", Duration::from_secs(10), || {
        let tried = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200));
        node.namespace.enter(tried).is_ok_and(|tried| tried.is_ok())
    })?;
    Ok(daemon)
}

/// Every one of them goes on.
fn go_on(flows: &mut [Conversation]) {
    for flow in flows {
        flow.limit(SOON).expect("a time limit");
        flow.exchange().expect("a flow that goes on");
    }
}

const CHECKED: &str =
    "health = { check = \"tcp\", interval = \"500ms\", timeout = \"500ms\", fall = 2 }\n";
const PASSIVE: &str = "health = { check = \"none\" }\n";

#[test]
fn a_node_whose_server_is_killed() -> Result<()> {
    let mut place = Place::build()?;
    let forwarder = place.forwarder(&format!("{CHECKED}slow_start = \"3s\"\n"))?;
    place.wait(&forwarder, 0, "up", Instant::now())?;
    place.wait(&forwarder, 1, "up", Instant::now())?;
    let [mut first, second] = place.flows(&forwarder)?;

    let begin = Instant::now();
    let server = place.servers[1].take().expect("it runs");
    server.signal(libc::SIGKILL);
    server.wait_exit(Duration::from_secs(5))?;
    let [served, slow, slowest] = place.recovery(begin)?;
    println!(
        "server killed: new connections after {served:.0?}, none slow after {slow:.0?}, slowest {slowest:.0?}"
    );
    // Its kernel ends its flows at once; nobody else's are touched.
    let ends: Vec<_> = second
        .into_iter()
        .map(|mut flow| flow.end(SOON).expect("an end"))
        .collect();
    println!(
        "  its {} flows ended after {:.0?}: {:?}",
        ends.len(),
        begin.elapsed(),
        ends[0]
    );
    go_on(&mut first);
    let down = place.wait(&forwarder, 1, "down", begin)?;
    println!("  known to be down after {down:.1?}");

    let begin = Instant::now();
    place.servers[1] = Some(serve(place.lab, &place.lab.nodes[1])?);
    let up = place.wait(&forwarder, 1, "up", begin)?;
    let share = || -> Result<u64> {
        let status = forwarder.status()?;
        let nodes = status["nodes"].as_array().expect("nodes");
        let shares = nodes.iter().map(|node| node["health"][0]["share"].as_u64());
        Ok(shares
            .map(Option::unwrap_or_default)
            .min()
            .unwrap_or_default())
    };
    let mut shares = vec![share()?];
    wait_until("its full share", SOON, || {
        shares.push(share().unwrap_or_default());
        shares.last() == Some(&100)
    })?;
    println!(
        "  back: up after {up:.1?}, full share after {:.1?}",
        begin.elapsed()
    );
    assert!(shares[0] < 100 && shares.is_sorted(), "{shares:?}");
    let [mut first_again, mut second_again] = place.flows(&forwarder)?;
    go_on(&mut first_again);
    go_on(&mut second_again);
    Ok(())
}

#[test]
fn a_node_that_falls_silent() -> Result<()> {
    let place = Place::build()?;
    for (title, keys, reset) in [
        (
            "checked, on_down = keep",
            format!("{CHECKED}on_down = \"keep\"\n"),
            false,
        ),
        (
            "checked, on_down = reset",
            format!("{CHECKED}on_down = \"reset\"\n"),
            true,
        ),
        ("passive signals alone", PASSIVE.to_owned(), false),
    ] {
        let forwarder = place.forwarder(&keys)?;
        let works = if keys == PASSIVE { "unwatched" } else { "up" };
        place.wait(&forwarder, 0, works, Instant::now())?;
        place.wait(&forwarder, 1, works, Instant::now())?;
        let [mut first, mut second] = place.flows(&forwarder)?;
        let begin = Instant::now();
        place.silence(1);
        let ([served, slow, slowest], down) = place.in_a_crowd(|| {
            let recovery = place.recovery(begin)?;
            Ok((recovery, place.wait(&forwarder, 1, "down", begin)?))
        })?;
        println!(
            "silent node, {title}: new connections after {served:.0?}, none slow after {slow:.0?}, slowest {slowest:.0?}; known to be down after {down:.1?}"
        );
        go_on(&mut first);
        if reset {
            // Nobody speaks, and all learn of it.
            let ends: Vec<_> = second.iter_mut().map(|flow| flow.end(SOON)).collect();
            println!(
                "  its {} flows were reset after {:.1?}",
                ends.len(),
                begin.elapsed()
            );
            for end in ends {
                assert_eq!(end.expect("an end"), Some(ErrorKind::ConnectionReset));
            }
            place.lab.nodes[1].wire().mend();
        } else {
            place.lab.nodes[1].wire().mend();
            let begin = Instant::now();
            go_on(&mut second);
            println!(
                "  its {} flows went on {:.1?} after it came back",
                second.len(),
                begin.elapsed()
            );
        }
    }
    Ok(())
}

#[test]
fn a_suspended_server_goes_on_where_it_was() -> Result<()> {
    let place = Place::build()?;
    let forwarder = place.forwarder(CHECKED)?;
    place.wait(&forwarder, 1, "up", Instant::now())?;
    let [mut first, mut second] = place.flows(&forwarder)?;
    let server = place.servers[1].as_ref().expect("it runs");
    server.signal(libc::SIGSTOP);
    for flow in &mut second {
        flow.ask().expect("room to send");
    }
    go_on(&mut first);
    std::thread::sleep(Duration::from_secs(2));
    server.signal(libc::SIGCONT);
    let begin = Instant::now();
    for flow in &mut second {
        flow.limit(SOON).expect("a time limit");
        flow.hear().expect("the answer to what was asked meanwhile");
    }
    println!(
        "{} flows of a suspended server went on {:.0?} after it did",
        second.len(),
        begin.elapsed()
    );
    go_on(&mut second);
    Ok(())
}

/// Resets a second and processor.
const RATE: u32 = 20;
/// Flows that learn of the reboot at the same moment.
const STRANDED: usize = 80;
/// Flows of which one shows how soon it learns.
const LOOKED_AT: usize = 4;

#[test]
fn after_a_reboot_of_the_entrance_clients_learn_it_in_one_round_trip() -> Result<()> {
    let builder = Lab::builder().tunnel(TunnelKind::Ethernet, 1).public_wire();
    let lab: &'static Lab = Box::leak(Box::new(builder.build()?));
    let _answerer = Answerer::start(&lab.nodes[0].namespace, PORT, false)?;
    let config = format!(
        "{}rst_rate = {RATE}\n{LISTENERS}\n[[pool]]\nclient_address = \"transparent\"\nname = \"talk\"\nnodes = [\"{}\"]\n{}",
        entrance_section(lab),
        lab.nodes[0].socket(Family::V4, PORT),
        route(&[NAME], "talk")
    );
    let mut forwarder = Forwarder::start(lab, &config)?;
    let entrance = SocketAddr::new(lab.public(Family::V4), 443);
    let open = || {
        let opened = lab.clients[0].namespace.enter(|| {
            let mut own = Conversation::open(entrance, NAME)?;
            own.exchange()?;
            Ok::<_, std::io::Error>(own)
        })?;
        opened.context(|| "opening a conversation".to_owned())
    };
    let mut flows = (0..STRANDED + LOOKED_AT)
        .map(|_| open())
        .collect::<Result<Vec<_>>>()?;

    // Nothing comes and nothing goes; then everything that was known is gone.
    lab.public_wire().set_rule(|_, _| Fate::Lose);
    forwarder.stop();
    run(forwarder.command()?.args(["unload", "--yes"]))?;
    forwarder.run()?;
    let delay = Duration::from_millis(100);
    lab.public_wire().mend();
    lab.public_wire().set_faults(Faults {
        delay,
        ..Faults::default()
    });
    // About two in a hundred look like a hello that is on its way, until the cookie's key changes.
    let mut begin = Instant::now();
    for mut one in flows.drain(..LOOKED_AT) {
        begin = Instant::now();
        one.ask().expect("room to send");
        match one.end(Duration::from_secs(2)) {
            Ok(end) => {
                assert_eq!(end, Some(ErrorKind::ConnectionReset));
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    let learnt = begin.elapsed();
    open()?;
    println!(
        "round trip {:?}: reset after {learnt:.0?}, served again after {:.0?}",
        delay * 2,
        begin.elapsed()
    );
    assert!(
        learnt >= delay * 2 && learnt < delay * 2 + Duration::from_secs(1),
        "{learnt:?}"
    );
    lab.public_wire().set_faults(Faults::default());

    // All at once: the limit holds, and as clients ask again all of them learn it.
    let drops = |forwarder: &Forwarder<'_>, reason: &str| -> Result<u64> {
        Ok(forwarder.status()?["drops"][reason]
            .as_u64()
            .unwrap_or_default())
    };
    let before = drops(&forwarder, "unknown_flow")?;
    let begin = Instant::now();
    for flow in &mut flows {
        flow.ask().expect("room to send");
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::sleep(Duration::from_millis(500));
    let sent = drops(&forwarder, "unknown_flow")? - before;
    // A second's worth may come at once.
    let most = processors as f64 * f64::from(RATE) * (begin.elapsed().as_secs_f64() + 1.0);
    println!(
        "{sent} of {STRANDED} reset after {:.1?}; {most:.0} are allowed",
        begin.elapsed()
    );
    assert!((sent as f64) <= most + 1.0, "{sent} resets, {most} allowed");
    let mut waiting = 0;
    for flow in &mut flows {
        // Later ones have had as much time as the first.
        let rest = Duration::from_secs(12).saturating_sub(begin.elapsed());
        match flow.end(rest.max(Duration::from_millis(20))) {
            Ok(end) => assert_eq!(end, Some(ErrorKind::ConnectionReset)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => waiting += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!(
        "{waiting} of {STRANDED} flows have not been reset after {:.1?}",
        begin.elapsed()
    );
    assert!(waiting <= STRANDED / 8, "{waiting} wait");
    assert!(drops(&forwarder, "reset_rate_limited")? > 0);
    open()?;
    Ok(())
}
