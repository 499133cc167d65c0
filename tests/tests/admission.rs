//! What is taken and what is left alone: traffic that the entrance routes to a node, frames with tags, and SYNs that the
//! XDP program has hardly room to answer.

use std::net::SocketAddr;

use forwarder_tests::Result;
use forwarder_tests::bench::bpf;
use forwarder_tests::client::Curl;
use forwarder_tests::command::run;
use forwarder_tests::error::Context;
use forwarder_tests::ethtool::Offloads;
use forwarder_tests::forwarder::entrance_section;
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::netns::Namespace;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::raw::{Injector, RawTcp, SILENCE, hardware_address};
use forwarder_tests::server::web::Report;
use forwarder_tests::site::{Site, configuration};

/// Another peer of the tunnel opens a node's port by way of the entrance, as a laptop does. It worked before the forwarder
/// came, and works beside it, whatever the pools of the node show it.
#[test]
fn other_peers_of_the_tunnel_reach_a_node_through_the_entrance() -> Result<()> {
    let site = Site::build(
        Lab::builder()
            .clients(1)
            .tunnel(TunnelKind::WireGuard, 2)
            .entrance_routes(),
    );
    let [node, laptop] = [&site.lab.nodes[0], &site.lab.nodes[1]];
    for family in Family::BOTH {
        let target = node.socket(family, 443);
        let name = "www.example.org";
        let curl = Curl::new(&laptop.namespace, &site.lab.pki, name, target, "/")?;
        let report: Report = curl.json()?;
        assert_eq!(report.server, "node0");
        assert_eq!(report.peer.ip(), laptop.socket(family, 0).ip());
        // The main job goes on beside it.
        assert_eq!(site.report(family, name)?.server, "node0");
    }
    Ok(())
}

/// A segment as the internet's last router hands it to the entrance, with a tag.
struct Tagged {
    injector: Injector,
    ours: [u8; 6],
}

impl Tagged {
    fn new(site: &Site) -> Result<Self> {
        let mac = |namespace: &Namespace, interface: &str| -> Result<[u8; 6]> {
            let link = namespace.ip_output(&["-o", "link", "show", "dev", interface])?;
            let words = link.split_whitespace();
            let mut words = words.skip_while(|word| *word != "link/ether").skip(1);
            let mac = words.next().and_then(hardware_address);
            Ok(mac.unwrap_or_else(|| panic!("no hardware address in {link}")))
        };
        let entrance = mac(&site.lab.entrance, "eth0")?;
        Ok(Self {
            injector: Injector::frames(&site.lab.router, "p0", entrance)?,
            ours: mac(&site.lab.router, "p0")?,
        })
    }

    fn send(&self, segment: &Segment, tag: u16) -> Result<()> {
        self.injector
            .send_tagged(&segment.to_bytes(), self.ours, tag)
    }
}

/// A frame of VLAN 0 holds a priority alone (802.1p) and is as good as one without a tag; one of another VLAN is not for
/// this interface.
#[test]
fn tags_are_taken_off_and_other_vlans_left_alone() -> Result<()> {
    const PRIORITY: u16 = 5 << 13;
    let site = Site::start();
    let tagged = Tagged::new(&site)?;
    for family in Family::BOTH {
        let target = site.entrance(family, 443);
        let mut raw = RawTcp::new(&site.lab.clients[0], target)?;
        let mut syn = raw.segment(Flags::SYN);
        syn.options = forwarder_tests::raw::SYN_OPTIONS.to_vec();
        for vlan in [7, 4_094] {
            tagged.send(&syn, PRIORITY | vlan)?;
        }
        assert_eq!(raw.drain(SILENCE)?, [], "of other VLANs");
        tagged.send(&syn, PRIORITY)?;
        let answer = raw.expect("a SYN-ACK", |segment| segment.flags.has(Flags::SYN_ACK))?;
        raw.next = raw.isn.wrapping_add(1);
        raw.expected = answer.seq.wrapping_add(1);
        let hello = Hello::small("record.example.org").record();
        let sent = raw.data_at(0, &hello);
        tagged.send(&sent, PRIORITY)?;
        raw.next = sent.end();
        site.recorded(&raw, hello.len())?;
        raw.expect("the node's acknowledgement", |segment| {
            segment.ack == sent.end()
        })?;
        let more = raw.data_at(hello.len() as u32, b"more");
        tagged.send(&more, PRIORITY)?;
        let mut all = hello.clone();
        all.extend(b"more");
        assert_eq!(site.recorded(&raw, all.len())?.bytes, all);
        assert_eq!(raw.bad_checksums, 0);
    }
    Ok(())
}

/// The answer to a SYN is at most four bytes longer than the SYN. On a veth there is no padding, and no room to grow.
#[test]
fn short_syns_are_answered_with_xdp_in_front() -> Result<()> {
    let lab = Lab::builder()
        .clients(1)
        .tunnel(TunnelKind::Ethernet, 2)
        .offloads(Offloads::ALL);
    let site = Site::build(lab);
    let ear = site.lab.router.enter(|| bpf::ear("p0"))?;
    let _ear = ear.context(|| String::from("an XDP program at the router"))?;
    let entrance = entrance_section(site.lab);
    site.forwarder.write_config(&format!(
        "{entrance}xdp = \"on\"\nxdp_veth = true\n{}",
        configuration(site.lab)
    ))?;
    run(site.forwarder.command()?.arg("reload"))?;
    let shown = site
        .lab
        .entrance
        .ip_output(&["link", "show", "dev", "eth0"])?;
    assert!(shown.contains("prog/xdp "), "{shown}");
    for family in Family::BOTH {
        let target: SocketAddr = site.entrance(family, 443);
        for options in [
            &[][..],
            &[2, 4, 5, 180],
            &[2, 4, 5, 180, 1, 1, 4, 2],
            &[2, 4, 5, 180, 1, 3, 3, 7],
            &[2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 1, 1],
        ] {
            for _ in 0..8 {
                let mut raw = RawTcp::new(&site.lab.clients[0], target)?;
                let answer = raw.connect_with(options)?;
                assert!(answer.mss().is_some(), "{options:?}");
                assert_eq!(raw.bad_checksums, 0);
            }
        }
    }
    Ok(())
}
