//! The daemon comes and goes; the flows stay. And it tells what it did.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use aya::programs::tc::{SchedClassifier, TcAttachType};
use forwarder_tests::Result;
use forwarder_tests::command::{command, describe, output, run};
use forwarder_tests::forwarder::{Forwarder, program};
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::{PATIENCE, SILENCE};
use forwarder_tests::server::recorder::Recorder;
use forwarder_tests::site::{LISTENERS, Site, configuration, pool, route};

fn start() -> Site {
    Site::build(Lab::builder().clients(2).tunnel(TunnelKind::Ethernet, 2))
}

#[test]
fn flows_outlive_the_daemon_and_a_new_one_adopts_them() -> Result<()> {
    let mut site = start();
    for killed in [false, true] {
        for family in Family::BOTH {
            let (mut raw, node) = site.established(family)?;
            if killed {
                site.forwarder.kill()?
            } else {
                site.forwarder.stop()
            };
            let mut sent = node.bytes.len();
            let mut talk = |site: &Site, word: &[u8]| -> Result<()> {
                raw.send_data(word)?;
                sent += word.len();
                assert!(site.recorded(&raw, sent)?.bytes.ends_with(word));
                node.send(word)?;
                assert_eq!(raw.read(word.len(), PATIENCE)?, word);
                Ok(())
            };
            talk(&site, b"without a daemon")?;
            // Even new connections are served, as configured last.
            assert_eq!(site.report(family, "www.example.org")?.server, "node0");
            site.forwarder.run()?;
            talk(&site, b"with a new one")?;
            assert_eq!(site.report(family, "www.example.org")?.server, "node0");
        }
    }
    Ok(())
}

#[test]
fn a_new_configuration_counts_for_new_connections() -> Result<()> {
    let mut site = start();
    let (mut raw, node) = site.established(Family::V4)?;
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    let changed = configuration(site.lab).replace("\"www.example.org\", ", "\"new.example.org\", ");
    let changed = changed.replace("\"record.example.org\"", "\"gone.example.org\"");
    site.forwarder.write_config(&changed)?;
    site.forwarder.stop();
    site.forwarder.run()?;
    assert_eq!(site.report(Family::V4, "new.example.org")?.server, "node0");
    assert_eq!(
        site.curl(Family::V4, "www.example.org", "/")?.run()?.status,
        0,
        "no longer listed"
    );
    // An open connection goes on, although its name is gone.
    raw.send_data(b"alive")?;
    site.recorded(&raw, node.bytes.len() + 5)?;
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_with_a_clear_word() -> Result<()> {
    let site = start();
    let second = output(site.forwarder.command()?.arg("run"))?;
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).to_lowercase();
    let pid = site.forwarder.daemon().unwrap().pid().to_string();
    assert!(
        said.contains("already") || said.contains("runs") || said.contains(&pid),
        "{said}"
    );
    assert_eq!(
        site.report(Family::V4, "www.example.org")?.server,
        "node0",
        "the first one is unharmed"
    );
    Ok(())
}

/// What is attached in the entrance, by the kernel's own account: TCX links, and what `tc` shows.
fn attached(lab: &Lab) -> Result<String> {
    let mut said = run(lab.entrance.command("tc")?.args(["qdisc", "show"]))?;
    for interface in ["eth0", "lan0"] {
        let mut tc = lab.entrance.command("tc")?;
        said += &run(tc.args(["filter", "show", "dev", interface, "ingress"]))?;
        // A kernel without TCX has no links to tell of.
        let query = || SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
        for program in lab
            .entrance
            .enter(query)?
            .map_or(Vec::new(), |found| found.1)
        {
            said += program.name_as_str().unwrap_or("a nameless program");
            said.push('\n');
        }
    }
    Ok(said)
}

#[test]
fn unload_removes_everything_and_only_without_a_daemon() -> Result<()> {
    let mut site = start();
    let (mut raw, _node) = site.established(Family::V4)?;
    let verb = ["route", "add", "edit.example.org", "--pool", "web"];
    run(site.forwarder.command()?.args(verb))?;
    let early = output(site.forwarder.command()?.args(["unload", "--yes"]))?;
    assert!(!early.status.success(), "not while the daemon runs");
    // A killed daemon leaves its socket behind, too.
    site.forwarder.kill()?;
    let before = attached(site.lab)?;
    assert!(
        before.contains("public_l2") && before.contains("tunnel_l2"),
        "{before}"
    );
    let run_dir = site.lab.folder().join("run");
    assert!(run_dir.exists() && site.forwarder.control().is_ok());

    let unasked = output(site.forwarder.command()?.arg("unload"))?;
    let said = String::from_utf8_lossy(&unasked.stderr).into_owned();
    assert_eq!(unasked.status.code(), Some(1), "{said}");
    assert!(said.contains("--yes"), "{said}");
    assert_eq!(attached(site.lab)?, before, "nothing was removed");

    let unload = output(site.forwarder.command()?.args(["unload", "--yes"]))?;
    let said = String::from_utf8_lossy(&unload.stderr).into_owned();
    assert!(unload.status.success(), "{said}");
    let address = format!("{}:443", site.lab.public(Family::V4));
    for word in ["1 open flow ends", "*.apps.example.org", &address] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!site.forwarder.bpffs().exists(), "pins are left");
    assert!(!run_dir.exists(), "files are left");
    let after = attached(site.lab)?;
    for word in ["public_l2", "tunnel_l2", "clsact"] {
        assert!(!after.contains(word), "{after}");
    }
    raw.send_data(b"anyone?")?;
    raw.expect("a reset by the entrance's own TCP", |segment| {
        segment.flags.has(Flags::RST)
    })?;
    assert!(site.forwarder.status().is_err());
    // And it can start again from nothing.
    site.forwarder.run()?;
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    let edited = site.curl(Family::V4, "edit.example.org", "/")?.run()?;
    assert_eq!(edited.status, 0, "the edit went with the rest");
    Ok(())
}

#[test]
fn unload_asks_on_a_terminal() -> Result<()> {
    let mut site = start();
    site.forwarder.stop();
    for (answer, removed) in [("n\n", false), ("y\n", true)] {
        let mut unload = site.forwarder.command()?;
        unload.arg("unload");
        let mut terminal = command("script")?;
        terminal.args(["-qec", &describe(&unload), "/dev/null"]);
        let mut asked = terminal
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of util-linux");
        let mut stdin = asked.stdin.take().expect("a pipe");
        stdin.write_all(answer.as_bytes()).expect("room to write");
        let done = asked.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.contains("Unload? [y/N]"), "{text}");
        assert!(text.contains("no flow is open"), "{text}");
        assert_eq!(done.status.success(), removed, "{text}");
        assert_eq!(site.forwarder.bpffs().exists(), !removed, "{text}");
    }
    Ok(())
}

#[test]
fn maps_of_another_version_are_refused_with_the_way_out() -> Result<()> {
    let mut site = start();
    let (mut raw, node) = site.established(Family::V4)?;
    site.forwarder.stop();
    let pins = site.forwarder.bpffs().to_owned();
    let own = std::fs::read_dir(&pins)
        .expect("pins")
        .flatten()
        .map(|entry| entry.path())
        .next()
        .expect("a version");
    // As if a newer program had loaded it: layouts of other versions have other directories.
    let other = pins.join("v9999");
    std::fs::rename(&own, &other).expect("bpffs can rename");
    let refused = output(site.forwarder.command()?.arg("run"))?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{said}");
    let ways: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
    let unload = format!("forwarder unload --yes --bpffs {}", pins.display());
    let start = format!("forwarder run --bpffs {}", pins.display());
    assert!(said.contains("v9999"), "{said}");
    assert!(
        ways.contains(&unload.as_str()) && ways.contains(&start.as_str()),
        "{ways:?}"
    );
    // The refusal has harmed nothing.
    raw.send_data(b"still here")?;
    let mut length = node.bytes.len() + 10;
    site.recorded(&raw, length)?;
    node.send(b"so am I")?;
    assert_eq!(raw.read(7, PATIENCE)?, b"so am I");
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    raw.send_data(b"!")?;
    length += 1;
    site.recorded(&raw, length)?;
    // The way out, as it says.
    let mut way_out = site.lab.entrance.command(program()?)?;
    way_out.args(unload.split(' ').skip(1));
    run(way_out.arg("--run-dir").arg(site.lab.folder().join("run")))?;
    let after = attached(site.lab)?;
    assert!(!pins.exists() && !after.contains("public_l2"), "{after}");
    raw.send_data(b"anyone?")?;
    raw.expect("a reset", |segment| segment.flags.has(Flags::RST))?;
    site.forwarder.run()?;
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    Ok(())
}

#[test]
fn check_warns_of_what_would_be_cut_off() -> Result<()> {
    let site = start();
    let here = site.lab.public(Family::V4);
    let check = |session: &str| -> Result<String> {
        // As `sudo` does: the shell that is asked has the session, and its child does not.
        let mut check = site.forwarder.command()?;
        check.args(["check", "--deny-warnings"]);
        let mut shell = command("sh")?;
        let line = format!("env -u SSH_CONNECTION {}; echo done $?", describe(&check));
        shell.env("SSH_CONNECTION", session).args(["-c", &line]);
        run(&mut shell)
    };
    let free = check(&format!("198.51.100.4 50000 {here} 22"))?;
    assert!(!free.contains("takes-"), "{free}");
    let taken = check(&format!("198.51.100.4 50000 {here} 443"))?;
    for words in ["takes-ssh", "lock yourself out", "--confirm", "done 1"] {
        assert!(taken.contains(words), "{words}: {taken}");
    }
    let _server = Recorder::start(&site.lab.entrance, 444)?;
    let taken = check("")?;
    for words in ["takes-socket", "port 444", "done 1"] {
        assert!(taken.contains(words), "{words}: {taken}");
    }
    Ok(())
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_old_ones() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::Ethernet, 1).build()?;
    let recorder = Recorder::start(&lab.nodes[0].namespace, 7000)?;
    let size = 1_024;
    let config = format!(
        "{}max_flows = {size}\n{LISTENERS}\n{}\n{}",
        forwarder_tests::forwarder::entrance_section(&lab),
        pool("record", "transparent", &[(&lab.nodes[0], 7000)]),
        route(&["record.example.org"], "record")
    );
    let forwarder = Forwarder::start(&lab, &config)?;
    let remote = std::net::SocketAddr::new(lab.public(Family::V4), 443);
    let hello = forwarder_tests::hello::Hello::small("record.example.org").record();
    let open = |address: u8, port: u16| -> Result<forwarder_tests::raw::RawTcp> {
        let local =
            std::net::SocketAddr::new(lab.clients[0].raw_address(Family::V4, address), port);
        let mut raw = forwarder_tests::raw::RawTcp::from(&lab.clients[0], local, remote)?;
        raw.connect()?;
        raw.send_data(&hello)?;
        Ok(raw)
    };
    let mut first = open(1, 1_000)?;
    let begun = recorder.wait_for("the first flow", PATIENCE, |c| {
        c.peer == first.local && c.bytes == hello
    })?;
    // A hundred sources have their share before the table is full.
    for number in 0..size + 100 {
        open(2 + u8::try_from(number % 100).unwrap(), 2_000 + number)?;
    }
    // Who has none is refused by the table itself, and not before.
    for number in 0..24 {
        open(102 + number, 2_000)?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let status = forwarder.status()?;
    assert_eq!(status["flows"]["max"], size, "{status}");
    assert!(
        status["flows"]["open"]
            .as_u64()
            .is_some_and(|open| open <= u64::from(size)),
        "{status}"
    );
    let drops = |reason: &str| status["drops"][reason].as_u64().unwrap_or_default();
    assert!(drops("source_limit") >= 90, "{status}");
    assert!(drops("flow_table_full") >= 5, "{status}");
    assert!(
        status["flows"]["open"]
            .as_u64()
            .is_some_and(|open| open >= u64::from(size) - 2),
        "{status}"
    );
    let from = lab.clients[0].raw_address(Family::V4, 2).to_string();
    let mut explain = forwarder.command()?;
    explain.args(["explain", "record.example.org", "--from", &from]);
    let said = forwarder_tests::command::output(&mut explain)?;
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("source_limit"), "{said}");
    first.send_data(b"still here")?;
    recorder.wait_for("the first flow's data", PATIENCE, |c| {
        c.peer == first.local && c.bytes.len() == begun.bytes.len() + 10
    })?;
    Ok(())
}

#[test]
fn the_numbers_are_right() -> Result<()> {
    let site = start();
    for family in Family::BOTH {
        for _ in 0..3 {
            site.report(family, "www.example.org")?;
        }
        site.report(family, "one.apps.example.org")?;
        site.curl(family, "private.example.org", "/")?.run()?;
    }
    let size = 1_000_000;
    let config = forwarder_tests::client::tls::config(
        &site.lab.pki,
        forwarder_tests::client::Crypto::Classic,
        &[],
    )?;
    let client = &site.lab.clients[0].namespace;
    let entrance = site.entrance(Family::V4, 443);
    let mut tls =
        forwarder_tests::client::TlsClient::connect(client, &config, "www.example.org", entrance)?;
    tls.download(&format!("/bytes/{size}"))?;
    drop(tls);

    let status = site.forwarder.status()?;
    let find = |list: &str, key: &str, value: &str| {
        let found = status[list]
            .as_array()
            .and_then(|all| all.iter().find(|one| one[key] == value))
            .cloned();
        found.unwrap_or_else(|| panic!("no {key} {value} among {list}: {status:#}"))
    };
    let https = find("listeners", "name", "https");
    assert_eq!(
        (https["opened"].as_u64(), https["refused"].as_u64()),
        (Some(9), Some(2)),
        "{https:#}"
    );
    let web = find("routes", "first_name", "www.example.org");
    assert_eq!(web["opened"], 7, "{web:#}");
    assert!(
        web["down_bytes"]
            .as_u64()
            .is_some_and(|bytes| (size..size * 2).contains(&bytes)),
        "{web:#}"
    );
    assert_eq!(
        find("routes", "first_name", "*.apps.example.org")["opened"],
        2
    );
    let node = find(
        "nodes",
        "address",
        &site.lab.nodes[0].socket(Family::V4, 443).to_string(),
    );
    assert_eq!(node["accepted"], 4, "{node:#}");
    assert!(
        node["connect_us"]
            .as_u64()
            .is_some_and(|time| time < 1_000_000),
        "{node:#}"
    );
    assert_eq!(status["drops"]["unlisted_name"], 2, "{status:#}");
    // Every connection was closed by both sides, and leaves the table: at the latest when the sweeper finds that a
    // reset overtook an acknowledgement.
    wait_until("an empty flow table", Duration::from_secs(150), || {
        site.forwarder
            .status()
            .is_ok_and(|status| status["flows"]["open"] == 0)
    })?;
    let status = site.forwarder.status()?;
    let web = status["routes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["first_name"] == "www.example.org")
        .unwrap();
    assert_eq!(
        web["closed"].as_u64().unwrap() + web["reset"].as_u64().unwrap(),
        7,
        "{web:#}"
    );
    Ok(())
}

#[test]
fn events_tell_who_came_for_what_and_how_it_ended() -> Result<()> {
    let site = start();
    site.report(Family::V4, "www.example.org")?;
    site.curl(Family::V6, "private.example.org", "/")?.run()?;
    let [client, client6] =
        Family::BOTH.map(|family| site.lab.clients[0].address(family).to_string());
    let tells = |words: &[&str]| {
        site.forwarder
            .log()
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    let node = site.lab.nodes[0].socket(Family::V4, 443).to_string();
    wait_until("the refusal", PATIENCE, || {
        tells(&["refused", &client6, "private.example.org", "unlisted_name"])
    })?;
    wait_until("the close", Duration::from_secs(30), || {
        let words = ["up_bytes", "down_bytes", "hello_ms", "connect_us"];
        words
            .iter()
            .all(|word| tells(&["closed", &client, "www.example.org", &node, word]))
    })?;
    Ok(())
}

#[test]
fn foreign_traffic_is_left_alone() -> Result<()> {
    let site = start();
    // Another port of the entrance, and the entrance's own connections into the tunnel.
    let recorder = Recorder::start(&site.lab.entrance, 22)?;
    for family in Family::BOTH {
        let mut raw = site.raw(family, 22)?;
        raw.connect()?;
        raw.send_data(b"SSH-2.0-x\r\n")?;
        recorder.wait_for("the bytes", PATIENCE, |c| {
            c.peer == raw.local && c.bytes == b"SSH-2.0-x\r\n"
        })?;
        let to = site.lab.nodes[0].socket(family, 7000);
        let own = site
            .lab
            .entrance
            .enter(|| std::net::TcpStream::connect_timeout(&to, PATIENCE))?
            .unwrap();
        let local = own.local_addr().unwrap();
        site.recorder
            .wait_for("the entrance's own connection", PATIENCE, |c| {
                c.peer == local
            })?;
        let mut closed = site.raw(family, 23)?;
        closed.send(&closed.segment(Flags::SYN))?;
        closed.expect("the kernel's reset for a closed port", |segment| {
            segment.flags.has(Flags::RST)
        })?;
        assert_eq!(closed.receive(SILENCE)?, None);
    }
    Ok(())
}
