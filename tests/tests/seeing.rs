//! What is written and counted about flows and refused connections: the flow log, countries, reloads.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::{command, run, run_with_input};
use forwarder_tests::hello::{self, Hello};
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::mmdb;
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::PATIENCE;
use forwarder_tests::site::{ALERT, Site, configuration, crowd};
use serde_json::Value;

/// How long a line or a count may take.
const SOON: Duration = Duration::from_secs(30);
const METRICS: &str = "127.0.0.1:9469";
/// What `[flow_log]` says besides the file.
const ALL: &str = "refused_per_minute = 100000\nrate = 1000\nburst = 1000\n";

/// A site that writes a flow log and knows two countries.
struct Place {
    site: Site,
    file: PathBuf,
}

impl Place {
    fn start(flow_log: &str) -> Result<Self> {
        let site = Site::build(Lab::builder().clients(1).tunnel(TunnelKind::Ethernet, 2));
        let file = site.lab.folder().join("flows.jsonl");
        let client = |family| site.lab.clients[0].address(family);
        let networks = [
            (client(Family::V4), 32, "DE"),
            (client(Family::V6), 128, "FR"),
        ];
        let database = site.lab.folder().join("country.mmdb");
        let place = Self { site, file };
        std::fs::write(&database, mmdb::countries(1_700_000_000, &networks)).unwrap();
        place.reload(&format!(
            "[metrics]\nlisten = {METRICS:?}\n[geoip]\ncountry = {database:?}\n[flow_log]\nto = {:?}\n{flow_log}",
            place.file
        ))?;
        place.wait_for_metric(
            "forwarder_geoip_build_timestamp_seconds{database=\"country\"}",
            |built| built == 1.7e9,
        )?;
        Ok(place)
    }

    fn reload(&self, sections: &str) -> Result<()> {
        let all = format!("{}\n{sections}", configuration(self.site.lab));
        self.site.forwarder.write_config(&all)?;
        run(self.site.forwarder.command()?.arg("reload"))?;
        Ok(())
    }

    fn client(&self, family: Family) -> IpAddr {
        self.site.lab.clients[0].address(family)
    }

    fn entrance(&self, family: Family) -> SocketAddr {
        self.site.entrance(family, ALERT)
    }

    /// Every line so far; each must be JSON.
    fn lines(&self) -> Vec<Value> {
        lines(&self.file)
    }

    /// The first line for which `wanted` holds, once there is one.
    fn line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let find = || self.lines().into_iter().find(|line| wanted(line));
        wait_until(&format!("the line of {what}"), SOON, || find().is_some())?;
        Ok(find().expect("it was there"))
    }

    /// What the metrics server answers.
    fn get(&self, path: &str) -> Result<String> {
        self.site.lab.entrance.enter(|| get(path))
    }

    /// A series of the metrics page; 0 if it is not there.
    fn metric(&self, series: &str) -> Result<f64> {
        let page = self.get("/metrics")?;
        let found = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(found.map_or(0.0, |value| value.parse().expect("a number")))
    }

    fn wait_for_metric(&self, series: &str, holds: impl Fn(f64) -> bool) -> Result<()> {
        wait_until(series, SOON, || self.metric(series).is_ok_and(&holds))
    }

    /// A connection of the client's kernel that sends a hello.
    fn connect(&self, family: Family, hello: &[u8]) -> Result<TcpStream> {
        let to = self.entrance(family);
        let client = &self.site.lab.clients[0].namespace;
        let mut stream = client
            .enter(|| TcpStream::connect_timeout(&to, PATIENCE))?
            .unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(hello).unwrap();
        Ok(stream)
    }

    /// A connection that is refused.
    fn refused(&self, family: Family, hello: &[u8]) -> Result<()> {
        let mut stream = self.connect(family, hello)?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.is_empty(), "an alert");
        Ok(())
    }
}

fn lines(file: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A page of the metrics server of this namespace; empty while it does not answer.
fn get(path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}

#[test]
fn flows_and_refusals_are_told_as_they_were() -> Result<()> {
    let place = Place::start(ALL)?;
    let hello = Hello::small("record.example.org").record();
    let mut stream = place.connect(Family::V4, &hello)?;
    let client = stream.local_addr().unwrap();
    let recorded = |length| {
        let what = format!("{length} bytes");
        place.site.recorder.wait_for(&what, PATIENCE, |c| {
            c.peer == client && c.bytes.len() == length
        })
    };
    let node = recorded(hello.len())?;
    node.send(&[7; 5_000])?;
    stream.read_exact(&mut [0; 5_000]).unwrap();
    std::thread::sleep(Duration::from_millis(150));
    stream.write_all(&[8; 321]).unwrap();
    recorded(hello.len() + 321)?;
    node.finish()?;
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    drop(stream);
    place.refused(Family::V6, &Hello::small("private.example.org").record())?;

    let closed = place.line("the flow", |line| line["event"] == "closed")?;
    let address = place.site.lab.nodes[0]
        .socket(Family::V4, 7_000)
        .to_string();
    for (key, value) in [
        ("client", Value::from(client.ip().to_string())),
        ("port", client.port().into()),
        ("local", place.entrance(Family::V4).to_string().into()),
        ("listener", "https".into()),
        ("name", "record.example.org".into()),
        ("listed", "record.example.org".into()),
        ("route", "record.example.org".into()),
        ("pool", "record".into()),
        ("node", address.into()),
        ("reason", "finished".into()),
        ("up_bytes", (hello.len() + 321).into()),
        ("down_bytes", 5_000.into()),
        ("hello_segments", 1.into()),
        ("country", "DE".into()),
        ("asn", Value::Null),
    ] {
        assert_eq!(closed[key], value, "{key} of {closed:#}");
    }
    let number = |key: &str| {
        closed[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {closed:#}"))
    };
    assert!((150..60_000).contains(&number("duration_ms")), "{closed:#}");
    assert!(
        (1..10_000_000).contains(&number("connect_us")),
        "{closed:#}"
    );
    assert!(
        number("hello_ms") < 10_000 && number("syns") >= 1 && number("hello_bytes") > 100,
        "{closed:#}"
    );
    let time = closed["time"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.len() == 27, "{time}");

    let refused = place.line("the refusal", |line| line["event"] == "refused")?;
    for (key, value) in [
        ("client", Value::from(place.client(Family::V6).to_string())),
        ("listener", "https".into()),
        ("name", "private.example.org".into()),
        ("node", Value::Null),
        ("reason", "unlisted_name".into()),
        ("country", "FR".into()),
    ] {
        assert_eq!(refused[key], value, "{key} of {refused:#}");
    }
    assert!(refused["hello_bytes"].as_u64() > Some(100), "{refused:#}");

    for (series, count) in [
        (
            "forwarder_connections_opened_by_country_total{country=\"DE\"}",
            1.0,
        ),
        (
            "forwarder_connections_opened_by_country_total{country=\"FR\"}",
            0.0,
        ),
        (
            "forwarder_connections_refused_by_country_total{country=\"FR\"}",
            1.0,
        ),
        ("forwarder_events_total{kind=\"opened\"}", 1.0),
        ("forwarder_events_total{kind=\"closed\"}", 1.0),
        ("forwarder_flow_log_lines_total", 2.0),
        ("forwarder_config_reloads_total{result=\"applied\"}", 1.0),
        ("forwarder_config_last_reload_successful", 1.0),
    ] {
        assert_eq!(place.metric(series)?, count, "{series}");
    }
    Ok(())
}

#[test]
fn whoever_watches_is_told_what_holds() -> Result<()> {
    let place = Place::start(ALL)?;
    place.site.report(Family::V4, "www.example.org")?;
    place.refused(Family::V4, &Hello::small("private.example.org").record())?;
    let answer = place.get("/metrics")?;
    let (_, page) = answer.split_once("\r\n\r\n").expect("a body");
    // It judges names, units, types and help.
    let mut promtool = command("promtool")?;
    promtool.args(["check", "metrics"]);
    let said = run_with_input(&mut promtool, page)?;
    assert_eq!(said.trim(), "");

    let status = |path: &str| -> Result<String> {
        let answer = place.get(path)?;
        Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    assert_eq!(status("/healthz")?, "200");
    assert_eq!(status("/readyz")?, "200");
    Ok(())
}

#[test]
fn no_name_breaks_a_line() -> Result<()> {
    let place = Place::start(ALL)?;
    let hostile: &[&[u8]] = &[
        b"a\"b.example.org",
        b"a\nb.example.org",
        b"a\\u000a\",\"event\":\"closed\"",
        b"\x1b[2J.example.org",
        b"\xff\xfe.example.org",
        "\u{2028}\u{85}.example.org".as_bytes(),
        b"\0",
        b"",
    ];
    for name in hostile {
        let content = hello::server_name(&[(0, name)]);
        let hello = Hello::small("x").server_name(content).record();
        place.refused(Family::V4, &hello)?;
    }
    let mut long = b"n.".repeat(126);
    long.push(b'n');
    let content = hello::server_name(&[(0, &long)]);
    place.refused(Family::V4, &Hello::small("x").server_name(content).record())?;
    wait_until("every line", SOON, || place.lines().len() > hostile.len())?;
    let lines = place.lines();
    assert_eq!(lines.len(), hostile.len() + 1);
    let text = std::fs::read(&place.file).unwrap();
    let odd = |byte: &&u8| !(b' '..0x7f).contains(*byte) && **byte != b'\n';
    assert_eq!(text.iter().find(odd), None);
    for line in &lines[..hostile.len()] {
        assert_eq!(line["event"], "refused", "{line:#}");
        assert_eq!(line["reason"], "bad_server_name", "{line:#}");
    }
    assert_eq!(lines[hostile.len()]["reason"], "unlisted_name");
    assert_eq!(
        lines[hostile.len()]["name"],
        String::from_utf8(long).unwrap()
    );
    Ok(())
}

#[test]
fn a_file_that_is_rotated_goes_on_and_nothing_is_lost() -> Result<()> {
    let place = Place::start(ALL)?;
    let hello = Hello::small("private.example.org").record();
    let moved = place.file.with_extension("1");
    place.refused(Family::V4, &hello)?;
    place.line("the first", |_| true)?;
    std::fs::rename(&place.file, &moved).unwrap();
    place.refused(Family::V4, &hello)?;
    place.refused(Family::V4, &hello)?;
    wait_until("the others", SOON, || place.lines().len() == 2)?;
    assert_eq!(lines(&moved).len(), 1);
    // By signal too: what was put in its place meanwhile is appended to.
    place.site.forwarder.daemon().unwrap().signal(libc::SIGHUP);
    let reloads = "forwarder_config_reloads_total{result=\"applied\"}";
    place.wait_for_metric(reloads, |count| count == 2.0)?;
    place.refused(Family::V4, &hello)?;
    wait_until("the last", SOON, || place.lines().len() == 3)?;
    // To standard output, which is the daemon's log here.
    let lines = format!("[metrics]\nlisten = {METRICS:?}\n[flow_log]\nto = \"stdout\"\n");
    place.reload(&lines)?;
    place.refused(Family::V4, &hello)?;
    let log = &place.site.forwarder;
    wait_until("a line of JSON", SOON, || {
        log.log()
            .lines()
            .any(|line| line.starts_with("{\"time\":") && line.contains("\"event\":\"refused\""))
    })?;
    assert_eq!(place.lines().len(), 3);
    // A broken file is not put to use, and that is seen.
    let broken = configuration(place.site.lab).replace("port = 444", "port = 444444");
    place.site.forwarder.write_config(&broken)?;
    place.site.forwarder.daemon().unwrap().signal(libc::SIGHUP);
    let refused = "forwarder_config_reloads_total{result=\"refused\"}";
    place.wait_for_metric(refused, |count| count == 1.0)?;
    assert_eq!(
        place.metric("forwarder_config_last_reload_successful")?,
        0.0
    );
    Ok(())
}

#[test]
fn a_daemon_that_stops_tells_what_has_happened() -> Result<()> {
    const COUNT: usize = 20;
    let mut place = Place::start(ALL)?;
    let hello = Hello::small("private.example.org").record();
    for _ in 0..COUNT {
        place.refused(Family::V4, &hello)?;
    }
    // The last ones are in the ring, where it would have looked a tenth of a second later.
    place.site.forwarder.stop();
    assert_eq!(place.lines().len(), COUNT);
    Ok(())
}

#[test]
fn a_flood_is_summed_up_and_counted() -> Result<()> {
    const FLOOD: usize = 80;
    const WRITTEN: usize = 5;
    let mut place = Place::start(&format!("refused_per_minute = {WRITTEN}\n"))?;
    let hello = Hello::small("private.example.org").record();
    crowd(FLOOD, 4, |_| place.refused(Family::V4, &hello));
    place.wait_for_metric("forwarder_events_total{kind=\"refused\"}", |count| {
        count == FLOOD as f64
    })?;
    // A flow has its own budget.
    place.site.report(Family::V4, "www.example.org")?;
    place.line("the flow", |line| line["event"] == "closed")?;
    let series = "forwarder_flow_log_dropped_total{cause=\"rate\"}";
    let left_out = place.metric(series)?;
    // What would be summed up within the minute is before the end.
    place.site.forwarder.stop();
    let lines = place.lines();
    let of = |event: &str| -> Vec<&Value> {
        let own = lines.iter().filter(|line| line["event"] == event);
        own.collect()
    };
    let written = of("refused").len();
    // The test may take longer than a twelfth of a minute.
    assert!((WRITTEN..WRITTEN + 5).contains(&written), "{lines:#?}");
    let summed: u64 = of("refused_further")
        .iter()
        .filter_map(|line| line["refused"].as_u64())
        .sum();
    assert_eq!(written as u64 + summed, FLOOD as u64, "{lines:#?}");
    assert_eq!(left_out, summed as f64);
    Ok(())
}

#[test]
fn what_a_new_daemon_cannot_know_is_null() -> Result<()> {
    let mut place = Place::start(&format!("{ALL}opened = true\n"))?;
    let hello = Hello::small("record.example.org").record();
    let stream = place.connect(Family::V4, &hello)?;
    let client = stream.local_addr().unwrap();
    let node = place.site.recorder.wait_for("the hello", PATIENCE, |c| {
        c.peer == client && !c.bytes.is_empty()
    })?;
    // Else the new daemon would find its opening in the ring.
    place.line("its opening", |line| line["event"] == "opened")?;
    place.site.forwarder.kill()?;
    place.site.forwarder.run()?;
    node.finish()?;
    drop(stream);
    let closed = place.line("the flow", |line| line["event"] == "closed")?;
    assert_eq!(closed["reason"], "finished", "{closed:#}");
    assert_eq!(
        closed["name"], "record.example.org",
        "listed without wildcard"
    );
    assert_eq!(closed["up_bytes"], hello.len());
    for unknown in ["hello_ms", "hello_segments", "connect_us", "syns"] {
        assert_eq!(closed[unknown], Value::Null, "{unknown} of {closed:#}");
    }
    Ok(())
}
