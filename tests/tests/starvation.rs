//! Many connections that drip a hello byte by byte, from one address and from many, beside honest clients: those are
//! served, all of them. How long it takes is told, and depends on this machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::client::tls::{Crypto, TlsClient, config};
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::Family;
use forwarder_tests::site::{ALERT, Site};
use socket2::{Domain, Protocol, Socket, Type};

/// Between two bytes of a hello.
const PAUSE: Duration = Duration::from_millis(850);
/// Honest connections beside each crowd.
const HONEST: usize = 60;

/// Room for so many sockets.
fn raise_limit() {
    let limit = libc::rlimit {
        rlim_cur: 16_384,
        rlim_max: 16_384,
    };
    // SAFETY: the pointer is to a local.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

fn connect(from: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket.bind(&SocketAddr::new(from, 0).into()).ok()?;
    socket
        .connect_timeout(&to.into(), Duration::from_secs(1))
        .ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.set_tcp_nodelay(true).ok()?;
    Some(socket.into())
}

/// Whether the connection can still be used after one more byte.
fn drip(socket: &mut TcpStream, byte: u8) -> bool {
    let mut answer = [0; 16];
    match socket.read(&mut answer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        _ => return false,
    }
    socket.write_all(&[byte]).is_ok()
}

/// So many connections from these addresses, kept up until told to stop. Returns how many were ended by the entrance.
fn crowd(
    count: usize,
    from: &[IpAddr],
    to: SocketAddr,
    open: &AtomicUsize,
    stop: &AtomicBool,
) -> usize {
    let bytes = Hello::browser("www.example.org", 3).record();
    let mut sockets: Vec<Option<(TcpStream, usize)>> = Vec::new();
    sockets.resize_with(count, || None);
    let mut ended = 0;
    while !stop.load(Ordering::Relaxed) {
        let round = Instant::now();
        for (number, slot) in sockets.iter_mut().enumerate() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match slot {
                Some((socket, at)) => {
                    if drip(socket, bytes[*at % bytes.len()]) {
                        *at += 1;
                    } else {
                        ended += 1;
                        *slot = None;
                    }
                }
                None => *slot = connect(from[number % from.len()], to).map(|socket| (socket, 0)),
            }
        }
        open.store(sockets.iter().flatten().count(), Ordering::Relaxed);
        std::thread::sleep(PAUSE.saturating_sub(round.elapsed()));
    }
    ended
}

fn honest(site: &Site, family: Family) -> Result<Vec<Duration>> {
    let namespace = &site.lab.clients[0].namespace;
    let mut times = Vec::new();
    for number in 0..HONEST {
        let crypto = if number % 2 == 0 {
            Crypto::Classic
        } else {
            Crypto::PostQuantum
        };
        let config = config(&site.lab.pki, crypto, &["http/1.1"])?;
        let began = Instant::now();
        let to = site.entrance(family, ALERT);
        let mut client = TlsClient::connect(namespace, &config, "www.example.org", to)?;
        assert_eq!(client.report()?.server, "node0");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn told(what: &str, times: &[Duration]) {
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what}: {half:?} half of them, {most:?} 99 %");
}

#[test]
fn dripping_hellos_starve_nobody() -> Result<()> {
    raise_limit();
    let site = Site::start();
    let lab = site.lab;
    let family = Family::V6;
    let addresses: Vec<IpAddr> = (0..200)
        .map(|n| lab.clients[1].raw_address(family, n))
        .collect();
    let lines: Vec<String> = addresses
        .iter()
        .map(|address| format!("addr add {address}/128 dev lo nodad"))
        .collect();
    lab.clients[1].namespace.ip(&lines.join("\n"))?;
    told("calm", &honest(&site, family)?);
    for (count, sources) in [(300, 1), (2_000, 1), (300, 200), (2_000, 200)] {
        let (open, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (from, to) = (addresses[..sources].to_vec(), site.entrance(family, ALERT));
        let (own_open, own_stop) = (Arc::clone(&open), Arc::clone(&stop));
        let (sender, ended) = std::sync::mpsc::channel();
        lab.clients[1].namespace.spawn("dripping", move || {
            let _ = sender.send(crowd(count, &from, to, &own_open, &own_stop));
        })?;
        let began = Instant::now();
        while open.load(Ordering::Relaxed) < count * 9 / 10
            && began.elapsed() < Duration::from_secs(30)
        {
            std::thread::sleep(Duration::from_millis(100));
        }
        // All of them have sent something.
        std::thread::sleep(2 * PAUSE);
        let times = honest(&site, family);
        let open = open.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        let ended = ended.recv().unwrap_or_default();
        told(
            &format!("{count} from {sources} ({open} open, {ended} ended)"),
            &times?,
        );
    }
    Ok(())
}
