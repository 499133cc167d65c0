//! What goes on to somebody else: an address that is no longer claimed, and programs of an earlier layout behind ours.

use forwarder_tests::hello::Hello;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX, Opened};
use forwarder_tests::programs::entrance::address;
use forwarder_tests::programs::shape::{Mode, Refusal, Shape};

fn each_flow(mut test: impl FnMut(&mut Bench, &Opened)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            println!("{shape:?} {mode:?}");
            let opened = Client::open(&mut bench, mode);
            opened.splice(&mut bench);
            test(&mut bench, &opened);
        }
    }
}

/// Marks the claimed address of a client as one that is no longer configured, or as one that is.
fn close(bench: &mut Bench, client: &Client, closed: u8) {
    let vips = &mut bench.maps.vips;
    let number = (0..vips.len())
        .find(|number| {
            let vip = vips.get(number, 0).expect("a claimed address");
            vip.address == address(client.vip.ip()) && vip.port_be == client.vip.port().to_be()
        })
        .expect("the client's");
    let mut vip = vips.get(&number, 0).expect("a claimed address");
    vip.closed = closed;
    vips.set(number, vip, 0).expect("VIPS");
}

#[test]
fn flows_of_an_address_that_is_closed_go_on_and_the_rest_is_the_hosts() {
    each_flow(|bench, opened| {
        let half = Client::connect(bench, Refusal::Alert);
        let another = Client::new(bench, Refusal::Alert);
        close(bench, &another, 1);
        // New connections, and those of which no byte was kept.
        bench.from_client(&another.syn(&LINUX)).passed();
        let hello = Hello::small(Mode::Transparent.name()).record();
        half.send(bench, 0, &hello).passed();
        for flags in [Flags::ACK, Flags::RST, Flags::FIN.with(Flags::ACK)] {
            bench.from_client(&another.segment(flags, 0, &[])).passed();
        }
        // The host answers a SYN of an open flow's client, too; what that says is no end for the flow.
        let ends = (opened.client.address, opened.client.vip);
        let again = Segment::new(ends.0, ends.1, Flags::SYN);
        bench.from_client(&again).passed();
        // The flow itself, both ways, to its end.
        let forwarded = |bench: &mut Bench| {
            let up = opened.from_client(Flags::PSH_ACK, 0, 0, b"up");
            assert_eq!(bench.from_client(&up).all().len(), 1);
            let down = opened.from_node(Flags::PSH_ACK, 0, 0, b"down");
            assert_eq!(bench.from_node(&down).all().len(), 1);
        };
        forwarded(bench);
        close(bench, &another, 0);
        forwarded(bench);
        assert_eq!(
            bench.from_client(&another.syn(&LINUX)).all().len(),
            1,
            "claimed again"
        );
    });
}

#[test]
fn what_nothing_here_knows_goes_on_to_programs_behind() {
    each_flow(|bench, opened| {
        let mut stranger = Client::new(bench, Refusal::Alert);
        stranger.forge();
        let fresh = Client::connect(bench, Refusal::Alert);
        let flow = bench.flow_key(opened.client.address, Refusal::Alert);
        let ours = bench.maps.flows.get(&flow, 0).expect("the flow");
        let up = opened.from_client(Flags::PSH_ACK, 0, 0, b"up");
        let down = opened.from_node(Flags::PSH_ACK, 0, 0, b"down");
        let foreign = |bench: &mut Bench| {
            let mut all = Vec::new();
            for flags in [Flags::ACK, Flags::RST, Flags::FIN.with(Flags::ACK)] {
                all.push(bench.from_client(&stranger.segment(flags, 7_000, &[])));
            }
            all.push(bench.from_client(&stranger.segment(Flags::PSH_ACK, 7_000, b"data")));
            all
        };
        bench.maps.set(|settings| settings.predecessor = 1);
        for seen in foreign(bench) {
            seen.passed();
        }
        // New connections are ours, and so are flows that are here.
        assert_eq!(bench.from_client(&stranger.syn(&LINUX)).all().len(), 1);
        let hello = Hello::small(Mode::Transparent.name()).record();
        assert_eq!(fresh.send(bench, 0, &hello).all().len(), 1);
        assert_eq!(bench.from_client(&up).all().len(), 1);
        assert_eq!(bench.from_node(&down).all().len(), 1);
        // One that is not here yet passes, both ways, until it is entered; what its segments acknowledge may look like a
        // cookie of ours.
        bench.maps.flows.remove(&flow).expect("the flow");
        bench.from_client(&up).passed();
        bench.from_node(&down).passed();
        bench.maps.flows.insert(flow, ours, 1).expect("entered");
        assert_eq!(bench.from_client(&up).all().len(), 1);
        assert_eq!(bench.from_node(&down).all().len(), 1);
        bench.maps.set(|settings| settings.predecessor = 0);
        let answered = foreign(bench)
            .iter()
            .filter(|seen| !seen.all().is_empty())
            .count();
        assert_eq!(answered, 3, "a reset for everything but a reset");
    });
}
