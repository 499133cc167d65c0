//! What is shown, one function a step.

use std::net::SocketAddr;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::capture::Capture;
use forwarder_tests::client::tls::{Crypto, TlsClient, client_hello, config};
use forwarder_tests::client::{Curl, Fetched};
use forwarder_tests::command::{command, output, run};
use forwarder_tests::lab::{Family, Lab};
use forwarder_tests::packet::Flags;
use serde_json::{Value, json};

use crate::report::Report;
use crate::scene::{Scene, random_file};

const SIZE: u64 = 100_000_000;

/// Shows everything, in order.
pub fn all(scene: &Scene, report: &mut Report) -> Result<()> {
    transparent(scene, report)?;
    proxied(scene, report)?;
    refused(scene, report)?;
    post_quantum(scene, report)?;
    bulk(scene, report)?;
    dead_node(scene, report)
}

fn entrance(lab: &Lab, family: Family) -> SocketAddr {
    SocketAddr::new(lab.public(family), 443)
}

fn curl(scene: &Scene, family: Family, name: &str, path: &str) -> Result<Curl> {
    Curl::new(
        &scene.lab.clients[0].namespace,
        &scene.lab.pki,
        name,
        entrance(scene.lab, family),
        path,
    )
}

fn failure(fetched: &Fetched) -> String {
    format!(
        "status {}, curl exit {}: {} {}",
        fetched.status, fetched.exit, fetched.error, fetched.body
    )
}

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

fn transparent(scene: &Scene, report: &mut Report) -> Result<()> {
    report.step("A listed name is forwarded, and the node sees the client itself (client_address = \"transparent\")");
    for family in Family::BOTH {
        let fetched = curl(scene, family, "www.example.org", "/whoami")?.run()?;
        let client = scene.lab.clients[0].address(family);
        let ok = fetched.status == 200 && fetched.body.starts_with(&format!("nginx|{client} "));
        let saw = if ok {
            format!("200; nginx saw the client as {client}")
        } else {
            failure(&fetched)
        };
        let ran = format!("curl {} https://www.example.org/whoami", flag(family));
        report.check_with(
            &ran,
            &saw,
            ok,
            [("seen", json!(fetched.body)), ("client", json!(client))],
        );
    }
    Ok(())
}

fn proxied(scene: &Scene, report: &mut Report) -> Result<()> {
    report.step(
        "The same by PROXY protocol, where the node cannot answer clients itself (\"proxy-v2\")",
    );
    for family in Family::BOTH {
        let client = scene.lab.clients[0].address(family);
        let tunnel = scene.lab.nodes[0].entrance_address(family);

        let fetched = curl(scene, family, "nginx.example.net", "/whoami")?.run()?;
        let ok = fetched.status == 200
            && fetched.body.contains(&format!("|{tunnel} "))
            && fetched.body.contains(&format!("|{client} "));
        let saw = if ok {
            format!("200; a connection from {tunnel}, whose header names {client} to nginx")
        } else {
            failure(&fetched)
        };
        report.check(
            &format!("curl {} https://nginx.example.net/whoami", flag(family)),
            &saw,
            ok,
        );

        let fetched = curl(scene, family, "haproxy.example.net", "/")?.run()?;
        let ok = fetched.status == 200
            && fetched.body.starts_with(&format!("{client} "))
            && fetched
                .body
                .contains("|haproxy.example.net|haproxy.example.net|");
        let saw = if ok {
            format!("200; HAProxy read {client}, the name and a unique id in the header")
        } else {
            failure(&fetched)
        };
        report.check(
            &format!("curl {} https://haproxy.example.net/", flag(family)),
            &saw,
            ok,
        );
    }
    Ok(())
}

fn refused(scene: &Scene, report: &mut Report) -> Result<()> {
    report.step("What is not listed is refused at the entrance: nothing of it reaches the tunnel");
    let lab = scene.lab;
    // Let the connections of the steps before finish their farewells.
    std::thread::sleep(Duration::from_millis(500));
    let before = tunnel_packets(lab)?;
    let capture = Capture::start(&lab.entrance, "wg0")?;

    for family in Family::BOTH {
        let fetched = curl(scene, family, "private.example.org", "/")?
            .limit(Duration::from_secs(5))
            .run()?;
        let ok = fetched.status == 0 && fetched.error.contains("unrecognized name");
        report.check(
            &format!("curl {} https://private.example.org/", flag(family)),
            &fetched.error,
            ok,
        );
    }
    let address = entrance(lab, Family::V4);
    let mut openssl = lab.clients[0].namespace.command("openssl")?;
    let nameless = output(openssl.args([
        "s_client",
        "-connect",
        &address.to_string(),
        "-noservername",
    ]))?;
    let said = String::from_utf8_lossy(&nameless.stderr);
    let alert = said
        .lines()
        .find(|line| line.contains("alert"))
        .unwrap_or("no alert")
        .trim();
    let alert = alert
        .split(':')
        .find(|part| part.contains("alert"))
        .unwrap_or(alert);
    report.check(
        &format!("openssl s_client -connect {address} -noservername"),
        &format!("without a name: {alert}"),
        !nameless.status.success() && said.contains("unrecognized name"),
    );
    let mut plain = lab.clients[0].namespace.command("curl")?;
    let plain = output(plain.args([
        "--silent",
        "--show-error",
        "--max-time",
        "5",
        &format!("http://{address}/"),
    ]))?;
    report.check(
        &format!("curl http://{address}/"),
        &format!(
            "not TLS at all: {}",
            String::from_utf8_lossy(&plain.stderr).trim()
        ),
        !plain.status.success(),
    );

    std::thread::sleep(Duration::from_millis(300));
    let (seen, after) = (capture.seen().len(), tunnel_packets(lab)?);
    report.check_with(
        "ip -s link show dev wg0",
        &format!(
            "the tunnel's counters before: {before} packets, after: {after}; a capture saw {seen}"
        ),
        before == after && seen == 0,
        [
            ("before", json!(before)),
            ("after", json!(after)),
            ("captured", json!(seen)),
        ],
    );
    Ok(())
}

/// Packets in and out of the tunnel so far.
fn tunnel_packets(lab: &Lab) -> Result<u64> {
    let text = lab
        .entrance
        .ip_output(&["-s", "-j", "link", "show", "dev", "wg0"])?;
    let links: Value = serde_json::from_str(&text).unwrap_or_default();
    let count = |way: &str| {
        links[0]["stats64"][way]["packets"]
            .as_u64()
            .unwrap_or_default()
    };
    Ok(count("rx") + count("tx"))
}

fn post_quantum(scene: &Scene, report: &mut Report) -> Result<()> {
    report.step("A post-quantum ClientHello does not fit into one segment; a first-segment parser fails here");
    let lab = scene.lab;
    let client = &lab.clients[1].namespace;
    // A fresh configuration each time: with the ticket of a former session, a hello is longer.
    let fresh = || config(&lab.pki, Crypto::PostQuantum, &["http/1.1"]);
    let size = client_hello(&fresh()?, "www.example.org")?.len();
    for family in Family::BOTH {
        let capture = Capture::start(&lab.entrance, "eth0")?;
        let mut tls =
            TlsClient::connect(client, &fresh()?, "www.example.org", entrance(lab, family))?;
        let body = String::from_utf8_lossy(&tls.get("/whoami")?).into_owned();
        let segments = hello_segments(&capture, size);
        let ok = segments.len() > 1
            && segments.iter().sum::<usize>() == size
            && body.starts_with("nginx|");
        report.check_with(
            &format!(
                "rustls with X25519MLKEM768: GET https://www.example.org/whoami by {family:?}"
            ),
            &format!("200; a hello of {size} bytes in segments of {segments:?}"),
            ok,
            [("hello_bytes", json!(size)), ("segments", json!(segments))],
        );
    }
    let address = entrance(lab, Family::V4);
    let mut tls = TlsClient::connect_in_pieces(client, &fresh()?, "www.example.org", address, 1)?;
    let ok = tls.get("/whoami")?.starts_with(b"nginx|");
    report.check(
        "the same, one byte a segment",
        &format!("200; {size} segments"),
        ok,
    );
    Ok(())
}

/// The sizes of the client's first data segments, up to the size of its hello. Where the network card
/// cuts the segments, the capture sees them still in one piece: they count as it will cut them.
fn hello_segments(capture: &Capture, size: usize) -> Vec<usize> {
    let segments = capture.segments();
    let mss = segments
        .iter()
        .find(|(sent, s)| *sent && s.flags.has(Flags::SYN_ACK))
        .and_then(|(_, s)| s.mss());
    let mss = usize::from(mss.unwrap_or(u16::MAX));
    let mut sizes = Vec::new();
    for (_, segment) in segments
        .iter()
        .filter(|(sent, s)| !sent && !s.payload.is_empty())
    {
        let mut rest = segment.payload.len();
        while rest > 0 && sizes.iter().sum::<usize>() < size {
            sizes.push(rest.min(mss));
            rest -= rest.min(mss);
        }
    }
    sizes
}

fn bulk(scene: &Scene, report: &mut Report) -> Result<()> {
    report.step("100 MB each way, spliced in the kernel, byte for byte");
    let folder = scene.lab.folder();
    let expected = random_file(&scene.nginx.files().join("random"), SIZE)?;
    let fetched_file = folder.join("fetched");
    let rate = |speed: f64| format!("{:.0} MB/s", speed / 1e6);

    for family in Family::BOTH {
        let fetched = curl(scene, family, "www.example.org", "/files/random")?
            .into_file(&fetched_file)
            .run()?;
        let sum = sha256(&fetched_file)?;
        let ok = fetched.status == 200 && sum == expected;
        let saw = if fetched.exit == 0 {
            format!(
                "{} through the tunnel; SHA-256 {}… {}",
                rate(fetched.download_speed),
                &sum[..12],
                equal(ok)
            )
        } else {
            failure(&fetched)
        };
        let ran = format!(
            "curl {} -o fetched https://www.example.org/files/random",
            flag(family)
        );
        report.check_with(
            &ran,
            &saw,
            ok,
            [
                ("bytes_per_second", json!(fetched.download_speed)),
                ("sha256", json!(sum)),
            ],
        );

        let stored = scene.nginx.files().join("uploaded");
        let _ = std::fs::remove_file(&stored);
        let sent = curl(scene, family, "www.example.org", "/files/uploaded")?
            .upload(&fetched_file)
            .run()?;
        let sum = if stored.exists() {
            sha256(&stored)?
        } else {
            String::from("nothing arrived")
        };
        let ok = sent.exit == 0 && sum == expected;
        let saw = if sent.exit == 0 {
            format!(
                "{} through the tunnel; SHA-256 {}… {}",
                rate(sent.upload_speed),
                &sum[..12],
                equal(ok)
            )
        } else {
            failure(&sent)
        };
        let ran = format!(
            "curl {} -T fetched https://www.example.org/files/uploaded",
            flag(family)
        );
        report.check_with(
            &ran,
            &saw,
            ok,
            [
                ("bytes_per_second", json!(sent.upload_speed)),
                ("sha256", json!(sum)),
            ],
        );
    }
    Ok(())
}

fn equal(ok: bool) -> &'static str {
    if ok { "equal" } else { "DIFFERS" }
}

fn sha256(file: &std::path::Path) -> Result<String> {
    let text = run(command("sha256sum")?.arg(file))?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

fn dead_node(scene: &Scene, report: &mut Report) -> Result<()> {
    report.step("A dead node is skipped: of a pool of two, one loses its link");
    let name = "any.apps.example.org";
    let ask = |count: usize| -> Result<Vec<Fetched>> {
        (0..count)
            .map(|_| {
                curl(scene, Family::V4, name, "/")?
                    .limit(Duration::from_secs(10))
                    .run()
            })
            .collect()
    };
    let served = |fetched: &Fetched| -> String {
        let body: Value = serde_json::from_str(&fetched.body).unwrap_or_default();
        body["server"].as_str().unwrap_or("nobody").to_owned()
    };
    let count =
        |all: &[Fetched], node: &str| all.iter().filter(|fetched| served(fetched) == node).count();
    let both = ask(12)?;
    let (one, two) = (count(&both, "node1"), count(&both, "node2"));
    let ran = format!("for i in $(seq 12); do curl https://{name}/; done");
    report.check(
        &ran,
        &format!("{one} answers by node 1, {two} by node 2"),
        one + two == 12 && one > 0 && two > 0,
    );

    scene.lab.nodes[2].namespace.ip("link set up0 down")?;
    report.note("ip link set up0 down   (on node 2)");
    let alone = ask(12)?;
    let slowest = alone
        .iter()
        .map(|fetched| fetched.seconds)
        .fold(0.0, f64::max);
    let one = count(&alone, "node1");
    report.check_with(
        &ran,
        &format!("{one} answers by node 1, none lost; the slowest took {slowest:.2} s"),
        one == 12,
        [("slowest_seconds", json!(slowest))],
    );
    Ok(())
}
