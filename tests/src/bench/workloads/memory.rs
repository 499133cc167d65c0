//! Memory of idle connections, of the whole entrance: kernel, processes, maps.
//!
//! It is what the machine has less of (`MemAvailable`) from before the contender's start to when all
//! connections are open, without what the bench itself took. The ends of the connections have vanished by
//! then ([`vanish`]): what is left is the entrance's. Some real connections that were opened first must
//! still work.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::bench::contender::{Capacity, Contender, Kind};
use crate::bench::contenders::proxied_connections;
use crate::bench::load::client::PATIENCE;
use crate::bench::load::job::{Job, REQUEST};
use crate::bench::load::server::RAW;
use crate::bench::load::{self, Place, vanish};
use crate::bench::measure::Meter;
use crate::bench::measure::memory::{Memory, map_memory, process_memory};
use crate::bench::scene::{NAME, Scene};
use crate::bench::workload::{Metric, Outcome, Stage, Workload};
use crate::error::{Context, Error, Result};
use crate::hello::Hello;

/// Connections that are being opened at once.
const WIDTH: usize = 64;
/// Connections that are opened before their ends vanish.
const BATCH: usize = 4_000;
/// How long a batch's ends stay: until the node has seen all acknowledgements.
const STAY: Duration = Duration::from_millis(250);
/// Client addresses at most: a /24 has few more.
const ADDRESSES: usize = 200;
/// The port of the first connection from each.
const FIRST_PORT: u16 = 1_100;
/// Connections through whoever needs a port of its own for each of them towards the node, of which one
/// address has no more: memory grows with each connection alike.
const PORTS: usize = 30_000;
/// Connections that must still work in the end.
const PROBES: usize = 200;

/// Many connections on which nothing is said.
pub const IDLE: Workload = Workload {
    name: "idle",
    title: "idle connections: memory of the entrance for each",
    metrics: &[
        Metric::ratio("memory", "B", "memory a connection, all told"),
        Metric::alone("process", "B", "of it processes"),
        Metric::alone("maps", "B", "of it BPF maps"),
        Metric::alone("start", "MB", "taken at the start"),
        Metric::alone("flows", "", "connections"),
    ],
    suits: |contender| {
        !matches!(contender.kind, Kind::Control | Kind::Shield) && contender.name != "redirect"
    },
    yardstick: "nginx",
    rounds: 1,
    run,
    ..super::connections::SMALL
};

fn run(stage: &mut Stage<'_>) -> Result<Outcome> {
    let scene = stage.scene;
    let flows = stage.scale.flows.min(most(stage.contender));
    stage.down();
    settle();
    let meter = Meter::start();
    let (before, own) = (Memory::now(), process_memory(&[std::process::id()]));
    let capacity = Capacity {
        flows: flows + 2 * each(flows),
        ..Capacity::default()
    };
    let running = stage.up_with(capacity)?;
    let (target, pids) = (running.service(RAW), running.pids.clone());
    settle();
    let started = Memory::now();
    let (sources, from_one) = (sources(scene, flows)?, each(flows));
    let (after, own_after, process, maps) = load::block_on(scene.client(), Place::Client, async {
        let mut probes = open(target, &sources, from_one, Job::Requests(1), 0..PROBES).await?;
        for first in (PROBES..flows).step_by(BATCH) {
            let batch = first..flows.min(first + BATCH);
            let opened = open(target, &sources, from_one, Job::Vanish, batch).await?;
            tokio::time::sleep(STAY).await;
            for socket in opened {
                vanish::now(socket).context(|| "leaving a connection".to_owned())?;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let figures = (
            Memory::now(),
            process_memory(&[std::process::id()]),
            process_memory(&pids),
            pids.first().copied().map(map_memory).unwrap_or_default(),
        );
        probe(&mut probes).await?;
        Ok(figures)
    })?;
    let usage = meter.stop();
    stage.down();
    let share = |bytes: f64| bytes / flows as f64;
    let taken = before.available as f64 - after.available as f64;
    let ours = own_after as f64 - own as f64;
    Ok(Outcome::new(
        &usage,
        vec![
            ("memory", share(taken - ours)),
            ("process", share(process as f64)),
            ("maps", share(maps as f64)),
            (
                "start",
                (before.available as f64 - started.available as f64) / 1e6,
            ),
            ("flows", flows as f64),
        ],
    ))
}

/// How many connections a contender can have at most.
fn most(contender: &Contender) -> usize {
    match contender.name {
        "forwarder-proxy" => PORTS,
        "nginx" | "haproxy" | "haproxy-proxy" | "sniproxy" => proxied_connections(Capacity {
            flows: PORTS,
            ..Capacity::default()
        }),
        _ => usize::MAX,
    }
}

/// Waits until the machine's free memory is steady.
fn settle() {
    let end = Instant::now() + Duration::from_secs(5);
    let mut last = Memory::now().available;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(300));
        let now = Memory::now().available;
        if now.abs_diff(last) < 1 << 20 {
            return;
        }
        last = now;
    }
}

/// Connections from one client address. In the end as many entries must be free, or it gets no further one.
fn each(flows: usize) -> usize {
    flows.div_ceil(ADDRESSES).max(500)
}

/// Gives the client addresses beside its own.
fn sources(scene: &Scene, flows: usize) -> Result<Vec<Ipv4Addr>> {
    let count = flows.div_ceil(each(flows)) as u8;
    let addresses: Vec<_> = (0..count)
        .map(|number| Ipv4Addr::new(198, 18, 0, 10 + number))
        .collect();
    for address in &addresses {
        scene
            .client()
            .ip(&format!("addr replace {address}/24 dev eth0"))?;
    }
    Ok(addresses)
}

async fn open(
    target: SocketAddr,
    sources: &[Ipv4Addr],
    each: usize,
    job: Job,
    numbers: Range<usize>,
) -> Result<Vec<TcpStream>> {
    let hello: Arc<[u8]> = job.hello(Hello::small(NAME)).into();
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..WIDTH {
        let (hello, sources) = (Arc::clone(&hello), sources.to_vec());
        let own = numbers.clone().skip(first).step_by(WIDTH);
        tasks.spawn(async move {
            let mut held = Vec::new();
            for number in own {
                let source = sources[number / each % sources.len()];
                let port = FIRST_PORT + (number % each) as u16;
                let opening = one(target, (source, port).into(), &hello);
                let opened = tokio::time::timeout(PATIENCE, opening).await;
                held.push(opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?);
            }
            Ok(held)
        });
    }
    let mut held = Vec::with_capacity(numbers.len());
    while let Some(part) = tasks.join_next().await {
        let part: io::Result<Vec<_>> = part.unwrap_or_else(|error| Err(io::Error::other(error)));
        held.extend(part.context(|| format!("opening connections to {target}"))?);
    }
    Ok(held)
}

/// The port is not left to the kernel: it would give those of vanished ends to others.
async fn one(target: SocketAddr, source: SocketAddr, hello: &[u8]) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(source)?;
    let mut stream = socket.connect(target).await?;
    stream.write_all(hello).await?;
    stream.read_exact(&mut [0]).await?;
    vanish::acknowledge(&stream)?;
    Ok(stream)
}

/// Connections that were opened long ago must still work.
async fn probe(held: &mut [TcpStream]) -> Result<()> {
    for stream in held {
        let exchange = async {
            stream.write_all(&[0; REQUEST]).await?;
            stream.read_exact(&mut [0]).await
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(result) => result
                .map(drop)
                .context(|| "using an idle connection".to_owned())?,
            Err(_) => {
                return Err(Error::Timeout {
                    what: "an answer on an idle connection".to_owned(),
                    waited: PATIENCE,
                    detail: String::new(),
                });
            }
        }
    }
    Ok(())
}
