//! Which beginnings of a connection are routed, byte for byte, and which are refused without any
//! packet in the tunnel; and how a refusal looks to the client.

use std::sync::OnceLock;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::run;
use forwarder_tests::hello::Hello;
use forwarder_tests::hello::cases::{self, Case, Verdict};
use forwarder_tests::lab::Family;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::{RawTcp, SILENCE};
use forwarder_tests::site::{ALERT, DROP, REFUSAL, RESET, Site};

const NAME: &str = "record.example.org";
/// A fatal alert `unrecognized_name` (112), RFC 6066, section 3.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(Site::start)
}

fn refused() -> Vec<Case> {
    let mut all: Vec<_> = cases::all(NAME)
        .into_iter()
        .filter(|case| case.verdict == Verdict::Refuse)
        .collect();
    let unlisted = |title, name: &str| Case {
        title,
        bytes: Hello::small(name).record(),
        verdict: Verdict::Refuse,
    };
    all.push(unlisted("an unlisted name", "private.example.org"));
    all.push(unlisted("a listed name's parent", "example.org"));
    all.push(unlisted("a listed name's child", "www.record.example.org"));
    all.push(Case {
        title: "an unlisted name in a browser's hello",
        bytes: Hello::browser("private.example.org", 3).record(),
        verdict: Verdict::Refuse,
    });
    all
}

/// Sends a beginning as a client's kernel would: segments of at most 1,300 bytes, as the window has
/// room for them, until all is acknowledged or refused.
fn send(raw: &mut RawTcp, bytes: &[u8]) -> Result<Vec<Segment>> {
    let mut answers = Vec::new();
    for piece in bytes.chunks(1_300) {
        raw.send_data(piece)?;
        answers.extend(raw.drain(Duration::from_millis(15))?);
        if answers
            .iter()
            .any(|segment| segment.flags.has(Flags::RST) || segment.flags.has(Flags::FIN))
        {
            break;
        }
    }
    Ok(answers)
}

#[test]
fn what_is_routed_arrives_byte_for_byte() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        for case in cases::all(NAME)
            .into_iter()
            .filter(|case| case.verdict == Verdict::Route)
        {
            let mut raw = site.raw(family, ALERT)?;
            raw.connect()?;
            send(&mut raw, &case.bytes)?;
            let seen = site.recorded(&raw, case.bytes.len());
            let seen = seen.unwrap_or_else(|error| panic!("{family:?}, {}: {error:?}", case.title));
            assert!(
                seen.bytes == case.bytes,
                "{family:?}, {}: the node got other bytes",
                case.title
            );
            assert_eq!(raw.bad_checksums, 0, "{}", case.title);
        }
    }
    Ok(())
}

#[test]
fn what_is_refused_gets_an_alert_and_nothing_reaches_the_tunnel() -> Result<()> {
    let site = site();
    let tunnels = [site.tunnel(0)?, site.tunnel(1)?];
    let mut locals = Vec::new();
    for family in Family::BOTH {
        for case in refused() {
            let mut raw = site.raw(family, ALERT)?;
            locals.push(raw.local);
            raw.connect()?;
            let mut answers = send(&mut raw, &case.bytes)?;
            let over = answers
                .iter()
                .any(|segment| segment.flags.has(Flags::RST) || segment.flags.has(Flags::FIN));
            answers.extend(raw.drain(if over {
                Duration::from_millis(30)
            } else {
                SILENCE
            })?);
            let context = || format!("{family:?}, {}: {answers:?}", case.title);
            let told: Vec<u8> = answers
                .iter()
                .flat_map(|segment| segment.payload.clone())
                .collect();
            let reset = answers.iter().any(|segment| segment.flags.has(Flags::RST));
            let closed = answers.iter().any(|segment| segment.flags.has(Flags::FIN));
            // What is not TLS at all may be reset instead: its client understands no alert.
            assert!(
                told == UNRECOGNIZED_NAME || (told.is_empty() && reset),
                "{}",
                context()
            );
            assert!(closed || reset, "the connection ends: {}", context());
        }
    }
    for tunnel in tunnels {
        tunnel.assert_none("a packet of a refused connection", |seen| {
            seen.packet
                .tcp()
                .is_some_and(|s| locals.contains(&s.source) || locals.contains(&s.destination))
        });
    }
    Ok(())
}

#[test]
fn an_unlisted_name_is_refused_as_the_listener_says() -> Result<()> {
    let site = site();
    let tunnel = site.tunnel(0)?;
    let hello = Hello::small("private.example.org").record();
    let mut locals = Vec::new();
    for family in Family::BOTH {
        for port in [ALERT, RESET, DROP] {
            let mut raw = site.raw(family, port)?;
            raw.connect()?;
            raw.drain(SILENCE)?;
            raw.send_data(&hello)?;
            let first = raw.receive(if port == DROP { SILENCE } else { REFUSAL })?;
            match (port, first) {
                (DROP, answer) => assert_eq!(answer, None, "silence"),
                (RESET, Some(answer)) => {
                    assert!(answer.flags.has(Flags::RST), "{answer:?}");
                    assert_eq!(
                        answer.seq, raw.expected,
                        "a reset that the client's kernel believes (RFC 5961)"
                    );
                }
                (_, Some(answer)) => {
                    assert_eq!(answer.payload, UNRECOGNIZED_NAME, "{answer:?}");
                    assert_eq!(
                        (answer.seq, answer.ack),
                        (raw.expected, raw.next),
                        "{answer:?}"
                    );
                    let closed = answer.flags.has(Flags::FIN)
                        || raw
                            .expect("the end", |segment| segment.flags.has(Flags::FIN))
                            .is_ok();
                    assert!(closed);
                }
                (_, None) => panic!("no refusal on port {port} by {family:?}"),
            }
            locals.push(raw.local);
        }
    }
    tunnel.assert_none("a packet of a refused connection", |seen| {
        seen.packet
            .tcp()
            .is_some_and(|s| locals.contains(&s.source) || locals.contains(&s.destination))
    });
    Ok(())
}

#[test]
fn real_clients_understand_the_refusals() -> Result<()> {
    use forwarder_tests::client::Curl;
    let site = site();
    let client = &site.lab.clients[0].namespace;
    for family in Family::BOTH {
        for (port, exits) in [(ALERT, &[35][..]), (RESET, &[35, 56]), (DROP, &[28])] {
            let curl = Curl::new(
                client,
                &site.lab.pki,
                "private.example.org",
                site.entrance(family, port),
                "/",
            )?;
            let fetched = curl.limit(Duration::from_secs(2)).run()?;
            assert!(
                exits.contains(&fetched.exit),
                "port {port}, {family:?}: {fetched:?}"
            );
            if port == ALERT {
                assert!(
                    fetched.error.contains("unrecognized name"),
                    "{}",
                    fetched.error
                );
                // Both halves are over: the client's kernel has not kept a FIN that it may not send.
                wait_until("the end of the connection", Duration::from_secs(3), || {
                    let sockets = client.command("ss").and_then(|mut ss| {
                        run(ss
                            .args(["-tanH", "exclude", "time-wait", "dport"])
                            .arg(format!("= :{ALERT}")))
                    });
                    sockets.is_ok_and(|sockets| sockets.trim().is_empty())
                })?;
            }
        }
    }
    Ok(())
}
