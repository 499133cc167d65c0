//! Interfaces that come, go and change, and several of each kind.

use std::net::SocketAddr;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::client::Curl;
use forwarder_tests::command::run;
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::{RawTcp, SYN_OPTIONS};
use forwarder_tests::server::web::{Report, WebOptions, WebServer};
use forwarder_tests::site::{LISTENERS, Site, pool, route};
use forwarder_tests::talk::{Answerer, Conversation};

/// Time enough to hear of a change and act on it.
const ADAPTS: Duration = Duration::from_secs(10);

#[test]
fn a_recreated_tunnel_is_found_again() -> Result<()> {
    let site = Site::start();
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    site.lab.recreate_wireguard(&site.lab.nodes[0])?;
    for family in Family::BOTH {
        for name in ["www.example.org", "proxied.example.org"] {
            wait_until(&format!("{name} by {family:?}"), ADAPTS, || {
                let curl = site
                    .curl(family, name, "/")
                    .map(|curl| curl.limit(Duration::from_secs(2)));
                curl.and_then(Curl::json::<Report>)
                    .is_ok_and(|report| report.server == "node0")
            })?;
        }
    }
    Ok(())
}

#[test]
fn open_flows_go_on_through_a_recreated_tunnel() -> Result<()> {
    let lab: &'static Lab = Box::leak(Box::new(
        Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?,
    ));
    let node = &lab.nodes[0];
    let answerers = [(7_300, false), (7_301, true)]
        .map(|(port, proxied)| Answerer::start(&node.namespace, port, proxied));
    let config = [
        LISTENERS.to_owned(),
        pool("plain", "transparent", &[(node, 7_300)]),
        pool("masked", "masquerade", &[(node, 7_300)]),
        pool("proxied", "proxy-v2", &[(node, 7_301)]),
        route(&["plain.example.org"], "plain"),
        route(&["masked.example.org"], "masked"),
        route(&["proxied.example.org"], "proxied"),
    ];
    let _forwarder = Forwarder::start(lab, &config.join("\n"))?;
    let open = |(family, name): (Family, &str)| -> std::io::Result<Conversation> {
        let entrance = SocketAddr::new(lab.public(family), 443);
        let mut own = Conversation::open(entrance, name)?;
        own.exchange()?;
        Ok(own)
    };
    let ways = Family::BOTH.into_iter().flat_map(|family| {
        [
            "plain.example.org",
            "masked.example.org",
            "proxied.example.org",
        ]
        .map(|name| (family, name))
    });
    let mut flows = lab.clients[0]
        .namespace
        .enter(|| ways.map(open).collect::<std::io::Result<Vec<_>>>())?
        .expect("flows through the first tunnel");
    lab.remove_wireguard(node)?;
    for flow in &mut flows {
        flow.ask().expect("room to send");
    }
    std::thread::sleep(Duration::from_secs(1));
    lab.make_wireguard(node)?;
    for flow in &mut flows {
        flow.hear().expect("the answer to what was asked meanwhile");
        flow.exchange().expect("a flow that goes on");
    }
    for answerer in answerers {
        assert_eq!(answerer?.failures(), Vec::<String>::new());
    }
    Ok(())
}

/// What the machine's own health checks would see.
fn readiness(lab: &Lab) -> Result<(u16, String)> {
    let mut curl = lab.entrance.command("curl")?;
    let text = run(curl.args(["-s", "-w", "\n%{http_code}", "http://127.0.0.1:9469/readyz"]))?;
    let (said, status) = text.rsplit_once('\n').expect("a status");
    Ok((
        status.trim().parse().expect("a number"),
        said.trim().to_owned(),
    ))
}

#[test]
fn a_tunnel_that_is_down_is_not_ready() -> Result<()> {
    let lab: &'static Lab = Box::leak(Box::new(
        Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?,
    ));
    let node = &lab.nodes[0];
    let config = [
        "[metrics]\nlisten = \"127.0.0.1:9469\"\n".to_owned(),
        LISTENERS.to_owned(),
        pool("web", "masquerade", &[(node, 443)]),
        route(&["www.example.org"], "web"),
    ];
    let forwarder = Forwarder::start(lab, &config.join("\n"))?;
    wait_until("ready", ADAPTS, || {
        readiness(lab).is_ok_and(|(status, _)| status == 200)
    })?;
    let ip = |words: [&str; 4]| -> Result<String> { run(lab.entrance.command("ip")?.args(words)) };
    ip(["link", "set", "wg0", "down"])?;
    wait_until("not ready", ADAPTS, || {
        readiness(lab).is_ok_and(|own| own == (503, String::from("down: wg0")))
    })?;
    let said = forwarder.status_text()?;
    assert!(said.contains("DOWN       wg0"), "{said}");
    assert_eq!(forwarder.status()?["down"], serde_json::json!(["wg0"]));
    Ok(())
}

#[test]
fn the_daemon_may_start_before_the_network_is_there() -> Result<()> {
    let lab: &'static Lab = Box::leak(Box::new(
        Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?,
    ));
    let node = &lab.nodes[0];
    let _web = WebServer::start(&node.namespace, &lab.pki, WebOptions::new("node0", 443))?;
    let tcp = "health = { check = \"tcp\", interval = \"300ms\" }\n";
    let config = [
        "[metrics]\nlisten = \"127.0.0.1:9469\"\n".to_owned(),
        LISTENERS.to_owned(),
        pool("web", "masquerade", &[(node, 443)]) + tcp,
        route(&["www.example.org"], "web"),
    ];
    lab.remove_wireguard(node)?;
    lab.remove_public(0)?;
    let forwarder = Forwarder::start(lab, &config.join("\n"))?;
    let waits_for = |what: &str, problem: &str| {
        wait_until(what, ADAPTS, || {
            readiness(lab).is_ok_and(|(status, said)| {
                (status, said.as_str())
                    == if problem.is_empty() {
                        (200, "ready")
                    } else {
                        (503, problem)
                    }
            })
        })
    };
    waits_for("no interface at all", "no such interface: wg0, eth0")?;
    let said = forwarder.status_text()?;
    for line in ["wg0: no such interface", "eth0: no such interface", "NONE"] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(
        forwarder.status()?["missing"],
        serde_json::json!(["wg0", "eth0"])
    );

    // First an interface, later its addresses, in the end the tunnel.
    lab.make_public(0)?;
    waits_for("the public interface", "no such interface: wg0")?;
    assert_eq!(
        forwarder.status()?["listeners"][0]["addresses"],
        serde_json::json!([])
    );
    lab.address_public(0)?;
    wait_until("claimed addresses", ADAPTS, || {
        let status = forwarder.status().unwrap_or_default();
        status["listeners"][0]["addresses"].as_array().map(Vec::len) == Some(2)
    })?;
    let get = |family| {
        let entrance = SocketAddr::new(lab.public(family), 443);
        let client = &lab.clients[0].namespace;
        let curl = Curl::new(client, &lab.pki, "www.example.org", entrance, "/");
        curl.map(|curl| curl.limit(Duration::from_secs(2)))
            .and_then(Curl::json::<Report>)
    };
    assert!(get(Family::V4).is_err(), "nothing leads to the node");
    lab.make_wireguard(node)?;
    waits_for("everything", "")?;
    for family in Family::BOTH {
        wait_until("service", ADAPTS, || get(family).is_ok())?;
    }

    // And once more: the public interface goes, and comes back as another one of the same name.
    let index = |status: &serde_json::Value| {
        let all = status["attachments"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let own = all.into_iter().find(|own| own["interface"] == "eth0");
        own.and_then(|own| own["ifindex"].as_u64())
    };
    let before = index(&forwarder.status()?);
    lab.remove_public(0)?;
    waits_for("the loss of it", "no such interface: eth0")?;
    lab.make_public(0)?;
    lab.address_public(0)?;
    waits_for("its return", "")?;
    let after = index(&forwarder.status()?);
    assert!(
        before.is_some() && after.is_some() && before != after,
        "{before:?} {after:?}"
    );
    for family in Family::BOTH {
        wait_until("service", ADAPTS, || get(family).is_ok())?;
    }
    Ok(())
}

#[test]
fn a_changed_mtu_changes_the_mss() -> Result<()> {
    let site = Site::start();
    let mss = |family| -> Result<Option<u16>> {
        let mut raw = site.raw(family, 443)?;
        let mut syn = raw.segment(Flags::SYN);
        syn.options = SYN_OPTIONS.to_vec();
        raw.send(&syn)?;
        Ok(raw
            .expect("a SYN-ACK", |segment| segment.flags == Flags::SYN_ACK)?
            .mss())
    };
    assert_eq!(
        (mss(Family::V4)?, mss(Family::V6)?),
        (Some(1_380), Some(1_360))
    );
    site.lab.entrance.ip("link set wg0 mtu 1280")?;
    wait_until("the smaller MSS", ADAPTS, || {
        mss(Family::V4).is_ok_and(|mss| mss == Some(1_240))
            && mss(Family::V6).is_ok_and(|mss| mss == Some(1_220))
    })?;
    assert_eq!(site.report(Family::V6, "www.example.org")?.server, "node0");
    Ok(())
}

#[test]
fn an_added_address_is_served() -> Result<()> {
    let site = Site::start();
    site.lab
        .entrance
        .ip("addr add 203.0.113.8/24 dev eth0\naddr add 2001:db8::8/64 dev eth0 nodad")?;
    for address in ["203.0.113.8:443", "[2001:db8::8]:443"] {
        let address: SocketAddr = address.parse().unwrap();
        let client = &site.lab.clients[0].namespace;
        wait_until(&format!("service on {address}"), ADAPTS, || {
            let curl = Curl::new(client, &site.lab.pki, "www.example.org", address, "/");
            let curl = curl.map(|curl| curl.limit(Duration::from_secs(2)));
            curl.and_then(Curl::json::<Report>)
                .is_ok_and(|report| report.server == "node0")
        })?;
    }
    Ok(())
}

#[test]
fn several_public_interfaces_and_tunnels_work_side_by_side() -> Result<()> {
    let lab = Lab::builder()
        .public_interfaces(2)
        .tunnel(TunnelKind::WireGuard, 1)
        .tunnel(TunnelKind::WireGuard, 1)
        .tunnel(TunnelKind::Ethernet, 1)
        .build()?;
    let _servers = lab
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(number, node)| {
            let name = format!("node{number}");
            let start = |options| WebServer::start(&node.namespace, &lab.pki, options);
            [
                start(WebOptions::new(&name, 443)),
                start(WebOptions::new(&name, 8443).proxy()),
            ]
        })
        .collect::<Result<Vec<_>>>()?;
    let mut config = LISTENERS.to_owned();
    for (number, node) in lab.nodes.iter().enumerate() {
        config += &pool(&format!("plain{number}"), "transparent", &[(node, 443)]);
        config += &route(
            &[&format!("plain{number}.example.org")],
            &format!("plain{number}"),
        );
        config += &pool(&format!("proxied{number}"), "proxy-v2", &[(node, 8443)]);
        config += &route(
            &[&format!("proxied{number}.example.org")],
            &format!("proxied{number}"),
        );
    }
    let _forwarder = Forwarder::start(&lab, &config)?;
    for family in Family::BOTH {
        for interface in 0..2 {
            let entrance = SocketAddr::new(lab.public_on(interface, family), 443);
            for number in 0..3 {
                for kind in ["plain", "proxied"] {
                    let name = format!("{kind}{number}.example.org");
                    let curl =
                        Curl::new(&lab.clients[0].namespace, &lab.pki, &name, entrance, "/")?;
                    let report: Report = curl.limit(Duration::from_secs(20)).json()?;
                    let context = format!("{name} by {entrance}");
                    assert_eq!(report.server, format!("node{number}"), "{context}");
                    assert_eq!(
                        report.client().ip(),
                        lab.clients[0].address(family),
                        "{context}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_listener_with_addresses_claims_those_alone() -> Result<()> {
    let lab = Lab::builder()
        .public_interfaces(2)
        .tunnel(TunnelKind::Ethernet, 1)
        .build()?;
    let _server = WebServer::start(
        &lab.nodes[0].namespace,
        &lab.pki,
        WebOptions::new("node0", 443),
    )?;
    let addresses = Family::BOTH.map(|family| lab.public_on(1, family).to_string());
    let config = format!(
        "[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\naddresses = {addresses:?}\n{}\n{}",
        pool("web", "transparent", &[(&lab.nodes[0], 443)]),
        route(&["www.example.org"], "web")
    );
    let _forwarder = Forwarder::start(&lab, &config)?;
    for family in Family::BOTH {
        let entrance = SocketAddr::new(lab.public_on(1, family), 443);
        let curl = Curl::new(
            &lab.clients[0].namespace,
            &lab.pki,
            "www.example.org",
            entrance,
            "/",
        )?;
        assert_eq!(curl.json::<Report>()?.server, "node0");
        // The other address belongs to the kernel, which has no server there.
        let mut raw = RawTcp::new(
            &lab.clients[0],
            SocketAddr::new(lab.public_on(0, family), 443),
        )?;
        raw.send(&raw.segment(Flags::SYN))?;
        raw.expect("the kernel's reset", |segment| {
            segment.flags.has(Flags::RST)
        })?;
    }
    Ok(())
}

/// An entrance that routes remembers next hops: they are right for both families, and a changed route counts.
#[test]
fn a_changed_route_to_the_client_counts_within_a_second() -> Result<()> {
    let builder = Lab::builder()
        .entrance_routes()
        .tunnel(TunnelKind::Ethernet, 1);
    let lab: &'static Lab = Box::leak(Box::new(builder.build()?));
    let node = &lab.nodes[0];
    let _answerer = Answerer::start(&node.namespace, 7_300, false);
    let config = [
        LISTENERS.to_owned(),
        pool("plain", "transparent", &[(node, 7_300)]),
        route(&["plain.example.org"], "plain"),
    ];
    let _forwarder = Forwarder::start(lab, &config.join("\n"))?;
    let client = &lab.clients[0];
    for (family, nobody) in [(Family::V4, "203.0.113.250"), (Family::V6, "2001:db8::250")] {
        let entrance = SocketAddr::new(lab.public(family), 443);
        let open = || Conversation::open(entrance, "plain.example.org");
        let mut flow = client.namespace.enter(open)?.expect("a flow");
        flow.exchange().expect("an answer");
        let six = if family == Family::V6 { "-6 " } else { "" };
        // The table that the lab's rule names for what comes from the public address.
        let to = client.address(family);
        let way = format!("{to} via {nobody} dev eth0 table 100");
        lab.entrance.ip(&format!("{six}route add {way}"))?;
        std::thread::sleep(Duration::from_millis(1_200));
        flow.limit(Duration::from_millis(700)).expect("a limit");
        flow.ask().expect("room to send");
        assert!(flow.hear().is_err(), "{family:?}: answered past the route");
        lab.entrance.ip(&format!("{six}route del {way}"))?;
        flow.limit(ADAPTS).expect("a limit");
        flow.hear().expect("the answer that was lost");
        flow.exchange().expect("an answer");
    }
    Ok(())
}
