//! Which name leads to which pool: exact before wildcard, longest wildcard next, per listener; and
//! a hundred thousand of them.

use std::fmt::Write;
use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::error::Context;
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::raw::{PATIENCE, RawTcp};
use forwarder_tests::server::recorder::Recorder;
use forwarder_tests::site::{LISTENERS, REFUSAL, pool, route};

/// Where a connection for a name ends: the recorder's number, or `None` if it is refused.
struct Names {
    lab: Lab,
    recorders: Vec<Recorder>,
}

impl Names {
    fn new() -> Result<Self> {
        let lab = Lab::builder().tunnel(TunnelKind::Ethernet, 1).build()?;
        let recorders = (0..4)
            .map(|number| Recorder::start(&lab.nodes[0].namespace, 7000 + number))
            .collect::<Result<_>>()?;
        Ok(Self { lab, recorders })
    }

    fn pools(&self) -> String {
        (0..4)
            .map(|number| {
                pool(
                    &format!("pool{number}"),
                    "transparent",
                    &[(&self.lab.nodes[0], 7000 + number)],
                )
            })
            .collect()
    }

    fn ends_at(&self, family: Family, port: u16, name: &str) -> Result<Option<usize>> {
        let remote = std::net::SocketAddr::new(self.lab.public(family), port);
        let mut raw = RawTcp::new(&self.lab.clients[0], remote)?;
        raw.connect()?;
        let hello = Hello::small(name).record();
        raw.send_data(&hello)?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let got = |recorder: &Recorder| {
                recorder
                    .connections()
                    .iter()
                    .any(|c| c.peer == raw.local && c.bytes == hello)
            };
            if let Some(number) = self.recorders.iter().position(got) {
                return Ok(Some(number));
            }
            let refused = raw.receive_matching(Duration::from_millis(5), |segment| {
                segment.flags.has(Flags::RST) || segment.flags.has(Flags::FIN)
            })?;
            if refused.is_some() {
                assert!(begin.elapsed() < REFUSAL, "a refusal comes at once");
                return Ok(None);
            }
        }
        panic!("{name} on port {port}: neither routed nor refused");
    }
}

#[test]
fn exact_before_wildcard_and_the_longest_wildcard_next() -> Result<()> {
    let names = Names::new()?;
    let config = [
        LISTENERS.to_owned(),
        names.pools(),
        route(&["www.example.org", "example.net"], "pool0"),
        route(&["*.example.org"], "pool1"),
        route(&["*.apps.example.org"], "pool2"),
        format!(
            "{}listeners = [\"reset\"]\n",
            route(&["only.example.com"], "pool3")
        ),
    ];
    let _forwarder = Forwarder::start(&names.lab, &config.join("\n"))?;
    let expected = [
        ("www.example.org", Some(0)),
        ("WWW.Example.ORG", Some(0)),
        ("example.net", Some(0)),
        ("www.example.net", None),
        ("other.example.org", Some(1)),
        ("a.b.c.example.org", Some(1)),
        ("www.www.example.org", Some(1)),
        ("apps.example.org", Some(1)),
        ("one.apps.example.org", Some(2)),
        ("a.b.apps.example.org", Some(2)),
        ("example.org", None),
        ("notexample.org", None),
        ("xapps.example.org", Some(1)),
        ("org", None),
        ("www.example.org.evil.example", None),
        ("only.example.com", None),
    ];
    for family in Family::BOTH {
        for (name, pool) in expected {
            assert_eq!(
                names.ends_at(family, 443, name)?,
                pool,
                "{name} by {family:?}"
            );
        }
        assert_eq!(
            names.ends_at(family, 444, "only.example.com")?,
            Some(3),
            "on its own listener"
        );
    }
    Ok(())
}

#[test]
fn a_hundred_thousand_names() -> Result<()> {
    let names = Names::new()?;
    let mut listed = String::new();
    for number in 0..100_000 {
        // Every tenth is a wildcard, and they differ in length and depth.
        let star = if number % 10 == 0 { "*." } else { "" };
        let _ = writeln!(
            listed,
            "  \"{star}host{number}.zone{}.example.org\",",
            number % 97
        );
    }
    let config = format!(
        "{LISTENERS}\n{}\n[[route]]\npool = \"pool0\"\nnames = [\n{listed}]\n{}",
        names.pools(),
        route(&["*.zone5.example.org"], "pool1")
    );
    let _forwarder = Forwarder::start(&names.lab, &config)?;
    for (name, pool) in [
        ("host1.zone1.example.org", Some(0)),
        ("host99999.zone89.example.org", Some(0)),
        ("host50001.zone46.example.org", Some(0)),
        ("deep.below.host10.zone10.example.org", Some(0)),
        ("host10.zone10.example.org", None),
        ("other.zone5.example.org", Some(1)),
        ("host5.zone5.example.org", Some(0)),
        ("host1.zone2.example.org", None),
        ("host100000.zone90.example.org", None),
    ] {
        assert_eq!(names.ends_at(Family::V4, 443, name)?, pool, "{name}");
    }
    Ok(())
}

/// Two listeners with the same name in different pools: while all other names change, neither may be led by
/// the other's names, or by none.
#[test]
fn a_name_that_stays_leads_where_it_led_all_through_a_reload() -> Result<()> {
    const KEPT: &str = "kept.example.org";
    let names = Names::new()?;
    let config = |generation: &str| {
        let route = |listener: &str, pool: &str| {
            let mut listed = format!("    {KEPT:?},\n");
            for number in 0..4_000 {
                let _ = writeln!(listed, "    \"{generation}-{number}.example.net\",");
            }
            format!(
                "[[route]]\npool = {pool:?}\nlisteners = [{listener:?}]\nnames = [\n{listed}]\n"
            )
        };
        let pools = names.pools();
        let [one, two] = [route("https", "pool0"), route("reset", "pool1")];
        let rest = forwarder_tests::site::route(&["*.example.com"], "pool2");
        format!("{LISTENERS}\n{pools}\n{one}{two}{rest}")
    };
    let forwarder = Forwarder::start(&names.lab, &config("one"))?;
    forwarder.write_config(&config("two"))?;
    let reload = forwarder.command()?.arg("reload").spawn();
    let mut reload = reload.context(|| "starting the reload".to_owned())?;
    let mut connections = 0;
    let mut after = 0;
    while after < 20 {
        let ended = reload.try_wait().context(|| "waiting".to_owned())?;
        after += u32::from(ended.is_some());
        for (port, pool) in [(443, 0), (444, 1)] {
            connections += 1;
            let end = names.ends_at(Family::V4, port, KEPT)?;
            assert_eq!(end, Some(pool), "connection {connections}, port {port}");
        }
    }
    assert_eq!(
        names.ends_at(Family::V4, 443, "two-9.example.net")?,
        Some(0)
    );
    assert_eq!(names.ends_at(Family::V4, 443, "one-9.example.net")?, None);
    Ok(())
}
