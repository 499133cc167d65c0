//! The lab tested by itself, with other programs standing where the forwarder will: a test bench
//! that is wrong would make every other test worthless.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::capture::Capture;
use forwarder_tests::client::Curl;
use forwarder_tests::client::programs::{has_java, java, openssl, python};
use forwarder_tests::client::tls::{Crypto, TlsClient, client_hello, config};
use forwarder_tests::command::run;
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::pattern;
use forwarder_tests::raw::{PATIENCE, RawTcp, SILENCE};
use forwarder_tests::server::haproxy::Haproxy;
use forwarder_tests::server::nginx::Nginx;
use forwarder_tests::server::recorder::{End, Recorder};
use forwarder_tests::server::web::{DOWNLOAD_SEED, Report, WebOptions, WebServer};
use forwarder_tests::wire::{Fate, Faults, Way};

/// A WireGuard tunnel with two nodes behind an entrance that routes.
fn routed() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let lab = Lab::builder()
            .clients(2)
            .tunnel(TunnelKind::WireGuard, 2)
            .entrance_routes()
            .build()
            .unwrap();
        // Clients reach the nodes' tunnel addresses by plain routing.
        let [v4, v6] = Family::BOTH.map(|family| lab.public(family));
        lab.router
            .ip(&format!(
                "route add 10.8.0.0/24 via {v4}\nroute add fd00:8::/64 via {v6}"
            ))
            .unwrap();
        lab
    })
}

#[test]
fn the_tunnel_is_a_real_l3_device_and_the_node_sees_its_client() -> Result<()> {
    let lab = routed();
    let link = lab
        .entrance
        .ip_output(&["-d", "link", "show", "dev", "wg0"])?;
    assert!(link.contains("link/none"), "no Ethernet: {link}");
    assert!(link.contains("mtu 1420"), "{link}");
    let node = &lab.nodes[1];
    let _server = WebServer::start(&node.namespace, &lab.pki, WebOptions::new("node1", 8443))?;
    let inside = Capture::start(&node.namespace, "wg0")?;
    let outside = Capture::start(&node.namespace, "up0")?;
    for family in Family::BOTH {
        let curl = Curl::new(
            &lab.clients[1].namespace,
            &lab.pki,
            "www.example.org",
            node.socket(family, 8443),
            "/",
        )?;
        let report: Report = curl.json()?;
        assert_eq!(report.peer.ip(), lab.clients[1].address(family));
        assert_eq!(report.sni.as_deref(), Some("www.example.org"));
    }
    inside.assert_checksums();
    assert!(
        inside
            .segments()
            .iter()
            .any(|(sent, s)| *sent && s.flags.has(Flags::SYN_ACK))
    );
    outside.assert_none("clear text beside the tunnel", |seen| {
        seen.packet.tcp().is_some()
    });
    assert!(!outside.seen().is_empty(), "the encrypted packets");
    Ok(())
}

#[test]
fn every_client_gets_through_nginx_preread_to_nginx() -> Result<()> {
    let lab = routed();
    let (node, client) = (&lab.nodes[0], &lab.clients[0].namespace);
    let name = "www.example.org";
    let _server = Nginx::serve_tls(lab, &node.namespace, "web", 443, false)?;
    let _entrance = Nginx::preread(lab, 443, &[(name, node.socket(Family::V4, 443))])?;
    let expected = format!("web|{}", node.entrance_address(Family::V4));
    for family in Family::BOTH {
        let entrance = SocketAddr::new(lab.public(family), 443);
        let fetched = Curl::new(client, &lab.pki, name, entrance, "/whoami")?.run()?;
        assert_eq!((fetched.status, fetched.exit), (200, 0), "{fetched:?}");
        assert!(fetched.body.starts_with(&expected), "{}", fetched.body);
        assert!(openssl(client, &lab.pki, name, entrance, &[])?.contains("Verification: OK"));
        assert!(python(client, &lab.pki, name, entrance, "/whoami")?.starts_with(&expected));
    }
    let entrance = SocketAddr::new(lab.public(Family::V4), 443);
    if has_java() {
        assert!(java(client, &lab.pki, name, entrance, "/whoami")?.starts_with(&expected));
    }
    for (crypto, length) in [
        (Crypto::PostQuantum, 1_300..1_800),
        (Crypto::Classic, 200..400),
    ] {
        let config = config(&lab.pki, crypto, &["http/1.1"])?;
        let hello = client_hello(&config, name)?;
        assert!(
            length.contains(&hello.len()),
            "{crypto:?}: {} bytes",
            hello.len()
        );
        let body = TlsClient::connect(client, &config, name, entrance)?.get("/whoami")?;
        assert!(String::from_utf8_lossy(&body).starts_with(&expected));
    }
    let refused = Curl::new(client, &lab.pki, "private.example.org", entrance, "/whoami")?.run()?;
    assert_eq!(refused.status, 0);
    assert_ne!(refused.exit, 0);
    Ok(())
}

#[test]
fn haproxy_tells_the_client_by_proxy_v2() -> Result<()> {
    let lab = routed();
    let (node, client) = (&lab.nodes[0], &lab.clients[1]);
    let entrance = SocketAddr::new(lab.public(Family::V4), 444);
    let _rustls = WebServer::start(
        &node.namespace,
        &lab.pki,
        WebOptions::new("proxied", 9443).proxy(),
    )?;
    let _haproxy = Haproxy::serve_tls(lab, &node.namespace, "proxied", 9444, true)?;
    let _nginx = Nginx::serve_tls(lab, &node.namespace, "proxied", 9445, true)?;
    let ask = |port| {
        let to = node.socket(Family::V4, port);
        let _entrance = Haproxy::pass_through(lab, 444, &["www.example.org"], to, true)?;
        Curl::new(
            &client.namespace,
            &lab.pki,
            "www.example.org",
            entrance,
            "/whoami",
        )?
        .run()
    };
    let report: Report = serde_json::from_str(&ask(9443)?.body).unwrap();
    let address = client.address(Family::V4);
    assert_eq!(report.client().ip(), address);
    assert_eq!(report.peer.ip(), node.entrance_address(Family::V4));
    assert_eq!(report.proxy.unwrap().destination, Some(entrance));
    let haproxy = ask(9444)?.body;
    assert!(haproxy.starts_with(&format!("{address} ")), "{haproxy}");
    let nginx = ask(9445)?.body;
    assert!(nginx.contains(&format!("|{address} ")), "{nginx}");
    Ok(())
}

#[test]
fn bytes_survive_loss_reordering_and_duplication() -> Result<()> {
    let lab = Lab::builder()
        .tunnel(TunnelKind::Ethernet, 1)
        .public_wire()
        .tunnel_wires()
        .entrance_routes()
        .seed(11)
        .build()?;
    lab.router.ip(&format!(
        "route add 10.64.0.0/24 via {}",
        lab.public(Family::V4)
    ))?;
    let node = &lab.nodes[0];
    let _server = WebServer::start(&node.namespace, &lab.pki, WebOptions::new("node0", 443))?;
    let faults = Faults {
        loss: 0.01,
        duplication: 0.01,
        reordering: 0.02,
        held: Duration::from_millis(2),
        delay: Duration::ZERO,
    };
    lab.public_wire().set_faults(faults);
    node.wire().set_faults(faults);
    let config = config(&lab.pki, Crypto::Classic, &[])?;
    let mut client = TlsClient::connect(
        &lab.clients[0].namespace,
        &config,
        "www.example.org",
        node.socket(Family::V4, 443),
    )?;
    let size = 5_000_000;
    assert_eq!(
        client.download(&format!("/bytes/{size}"))?,
        (size, pattern::digest(DOWNLOAD_SEED, size))
    );
    let upload = client.upload("/", 5, size)?;
    assert_eq!(
        (upload.bytes, upload.sha256),
        (size, pattern::digest(5, size))
    );
    for wire in [lab.public_wire(), node.wire()] {
        let counters = wire.counters();
        for counter in [&counters.lost, &counters.duplicated, &counters.held] {
            assert!(
                counter.load(std::sync::atomic::Ordering::Relaxed) > 20,
                "{counters:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_rule_picks_out_one_packet() -> Result<()> {
    let lab = Lab::builder()
        .tunnel(TunnelKind::Ethernet, 1)
        .public_wire()
        .build()?;
    let recorder = Recorder::start(&lab.entrance, 7000)?;
    let mut syns = 0;
    lab.public_wire()
        .set_rule(move |way, packet| match packet.tcp() {
            Some(segment) if way == Way::In && segment.flags == Flags::SYN && syns == 0 => {
                syns += 1;
                Fate::Lose
            }
            _ => Fate::Pass,
        });
    let mut raw = RawTcp::new(
        &lab.clients[0],
        SocketAddr::new(lab.public(Family::V4), 7000),
    )?;
    raw.send(&raw.segment(Flags::SYN))?;
    assert_eq!(raw.receive(SILENCE)?, None, "the first SYN is lost");
    raw.connect()?;
    recorder.wait_for("the second one's connection", PATIENCE, |_| true)?;
    Ok(())
}

#[test]
fn hand_made_segments_do_what_they_should_to_a_kernel() -> Result<()> {
    let lab = routed();
    let recorder = Recorder::start(&lab.entrance, 7001)?;
    for family in Family::BOTH {
        let client = &lab.clients[0];
        let mut raw = RawTcp::new(client, SocketAddr::new(lab.public(family), 7001))?;
        let answer = raw.connect()?;
        assert!(
            answer.mss().is_some() && answer.sack_permitted() && answer.window_scale().is_some(),
            "{answer:?}"
        );
        let hello = Hello::browser("www.example.org", 1).record();
        // Backwards: each of the last bytes on its own, then the middle, then the front, which comes
        // with a wrong checksum first.
        let (front, rest) = hello.split_at(1_000);
        let (middle, back) = rest.split_at(rest.len() - 40);
        for (at, byte) in back.iter().enumerate().rev() {
            raw.send(&raw.data_at(offset(front.len() + middle.len() + at), &[*byte]))?;
        }
        raw.send(&raw.data_at(offset(front.len()), middle))?;
        let mut broken = raw.data_at(0, front).to_bytes();
        *broken.last_mut().unwrap() ^= 0x55;
        raw.send_packet(&broken)?;
        let begin = raw.next;
        assert_eq!(
            raw.receive_matching(SILENCE, |segment| segment.ack != begin)?,
            None
        );
        raw.send(&raw.data_at(0, front))?;
        let end = raw.next.wrapping_add(offset(hello.len()));
        raw.expect("the acknowledgement of everything", |segment| {
            segment.ack == end
        })?;
        let seen = recorder.wait_for("the hello", PATIENCE, |c| {
            c.peer == raw.local && c.bytes.len() >= hello.len()
        })?;
        assert_eq!(seen.bytes, hello);
        seen.send(b"answer")?;
        assert_eq!(raw.read(6, PATIENCE)?, b"answer");
        seen.reset()?;
        raw.expect("the reset", |segment| segment.flags.has(Flags::RST))?;
        assert_eq!(raw.bad_checksums, 0);
    }
    assert!(
        recorder
            .connections()
            .iter()
            .all(|connection| connection.end != End::Fin)
    );
    Ok(())
}

fn offset(index: usize) -> u32 {
    u32::try_from(index).unwrap()
}

#[test]
fn the_capture_notices_what_a_kernel_hides() -> Result<()> {
    let lab = routed();
    let capture = Capture::start(&lab.entrance, "eth0")?;
    let raw = RawTcp::new(
        &lab.clients[1],
        SocketAddr::new(lab.public(Family::V4), 7999),
    )?;
    let mut broken = raw.segment(Flags::ACK).to_bytes();
    broken[36] ^= 0xff;
    raw.send_packet(&broken)?;
    let local = raw.local;
    capture.wait_for("the broken segment", PATIENCE, |seen| {
        seen.packet.tcp().is_some_and(|s| s.source == local)
    })?;
    let caught =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| capture.assert_checksums()));
    assert!(caught.is_err());
    let unwanted = || {
        capture.assert_none("packets", |seen| {
            seen.packet.tcp().is_some_and(|s| s.source == local)
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(unwanted)).is_err());
    Ok(())
}

#[test]
fn the_web_server_misbehaves_on_request() -> Result<()> {
    let lab = routed();
    let options = WebOptions::new("odd", 8444).keep_alive(Duration::from_secs(1));
    let _server = WebServer::start(&lab.entrance, &lab.pki, options)?;
    let client = &lab.clients[0].namespace;
    let address = SocketAddr::new(lab.public(Family::V4), 8444);
    let config = config(&lab.pki, Crypto::PostQuantum, &[])?;
    let connect = || TlsClient::connect(client, &config, "www.example.org", address);
    let capture = Capture::start(client, "eth0")?;
    let upload = connect()?.upload_and_close(9, 300_000)?;
    assert_eq!(
        (upload.bytes, upload.sha256),
        (300_000, pattern::digest(9, 300_000))
    );
    let upload = connect()?.upload("/stall/1000", 9, 8_000_000)?;
    assert_eq!(upload.sha256, pattern::digest(9, 8_000_000));
    let segments = capture.segments();
    assert!(
        segments
            .iter()
            .any(|(sent, s)| !sent && s.window == 0 && !s.flags.has(Flags::RST)),
        "a zero window"
    );
    assert!(connect()?.get("/reset").is_err());
    let mut idle = connect()?;
    assert_eq!(idle.report()?.requests, 1);
    let begin = idle.socket().local_addr().unwrap();
    std::thread::sleep(Duration::from_millis(1_600));
    let probes = capture.segments();
    let probe = probes.iter().any(|(sent, s)| {
        !sent && s.destination == begin && s.payload.is_empty() && {
            let top = probes
                .iter()
                .filter(|(sent, s)| !sent && s.destination == begin)
                .map(|(_, s)| s.end())
                .max();
            Some(s.seq.wrapping_add(1)) == top
        }
    });
    assert!(probe, "a keep-alive probe");
    assert_eq!(idle.report()?.requests, 2);
    Ok(())
}

#[test]
fn nothing_is_left_behind() -> Result<()> {
    // Pids end at 4,194,304; no process can have this one.
    let stale = "fw4194305-0-node0";
    run(Command::new("ip").args(["netns", "add", stale]))?;
    let lab = Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?;
    let (name, folder) = (lab.name().to_owned(), lab.folder().to_path_buf());
    let pids = lab.wireguard_pids();
    assert_eq!(pids.len(), 2);
    assert!(Path::new(&format!("/run/netns/{name}-entrance")).exists());
    assert!(!Path::new("/run/netns").join(stale).exists());
    let bpffs = run(Command::new("stat")
        .args(["-f", "-c", "%T"])
        .arg(lab.bpffs()))?;
    assert_eq!(bpffs.trim(), "bpf_fs");
    drop(lab);
    let left = run(Command::new("ip").args(["netns", "list"]))?;
    assert!(!left.contains(&name), "{left}");
    assert!(!folder.exists());
    assert!(
        pids.iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    );
    assert!(!run(Command::new("cat").arg("/proc/self/mounts"))?.contains(&name));
    Ok(())
}

#[test]
fn a_recreated_tunnel_works_again() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?;
    let recorder = Recorder::start(&lab.nodes[0].namespace, 80)?;
    let index = || {
        lab.entrance
            .ip_output(&["-o", "link", "show", "dev", "wg0"])
    };
    let before = index()?;
    lab.recreate_wireguard(&lab.nodes[0])?;
    assert_ne!(
        before.split(':').next(),
        index()?.split(':').next(),
        "another index"
    );
    let to = lab.nodes[0].socket(Family::V6, 80);
    lab.entrance
        .enter(|| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(10)))?
        .unwrap();
    recorder.wait_for("a connection", PATIENCE, |_| true)?;
    Ok(())
}

#[test]
fn several_public_interfaces_and_tunnels_are_addressed_apart() -> Result<()> {
    let lab = Lab::builder()
        .public_interfaces(2)
        .tunnel(TunnelKind::WireGuard, 1)
        .tunnel(TunnelKind::WireGuard, 1)
        .tunnel(TunnelKind::Ethernet, 1)
        .tunnel_mtu(1280)
        .build()?;
    assert_eq!(lab.public_interfaces(), ["eth0", "eth1"]);
    assert_eq!(lab.tunnel_interfaces(), ["wg0", "wg1", "lan2"]);
    assert_eq!(
        lab.public_on(1, Family::V4),
        IpAddr::V4(Ipv4Addr::new(203, 0, 114, 7))
    );
    let _recorders = lab
        .nodes
        .iter()
        .map(|node| Recorder::start(&node.namespace, 80))
        .collect::<Result<Vec<_>>>()?;
    for node in &lab.nodes {
        let link = lab
            .entrance
            .ip_output(&["link", "show", "dev", &node.entrance_interface])?;
        assert!(link.contains("mtu 1280"), "{link}");
        for family in Family::BOTH {
            let to = node.socket(family, 80);
            let local = lab
                .entrance
                .enter(|| std::net::TcpStream::connect(to).and_then(|s| s.local_addr()))?;
            assert_eq!(local.unwrap().ip(), node.entrance_address(family));
        }
    }
    let recorder = Recorder::start(&lab.entrance, 80)?;
    for interface in 0..2 {
        for family in Family::BOTH {
            let mut raw = RawTcp::new(
                &lab.clients[0],
                SocketAddr::new(lab.public_on(interface, family), 80),
            )?;
            raw.connect()?;
            recorder.wait_for("the connection", PATIENCE, |connection| {
                connection.peer == raw.local
            })?;
        }
    }
    Ok(())
}
