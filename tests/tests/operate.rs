//! Changing the forwarder while flows are open: reload, routes, nodes, flows, and the control socket.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::{output, run};
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::{PATIENCE, RawTcp};
use forwarder_tests::server::recorder::Connection;
use forwarder_tests::server::web::{WebOptions, WebServer};
use forwarder_tests::site::{LISTENERS, Site, configuration, route};

fn start() -> Site {
    Site::build(Lab::builder().clients(2).tunnel(TunnelKind::Ethernet, 2))
}

/// What a verb says; it must succeed.
fn verb(forwarder: &Forwarder<'_>, arguments: &[&str]) -> Result<String> {
    run(forwarder.command()?.args(arguments))
}

/// What a verb says when it must fail.
fn refused(forwarder: &Forwarder<'_>, arguments: &[&str]) -> Result<String> {
    let output = output(forwarder.command()?.args(arguments))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    Ok(said)
}

fn json(forwarder: &Forwarder<'_>, arguments: &[&str]) -> Result<serde_json::Value> {
    let text = run(forwarder.command()?.args(arguments).arg("--json"))?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Two web servers under one name, balanced by the client's address; the nodes are called `firstV4`,
/// `secondV4` and so on.
fn two_nodes(lab: &Lab) -> String {
    let node = |name: &str, at: usize, family: Family| {
        let address = lab.nodes[at].socket(family, 443).to_string();
        format!("{{ name = \"{name}{family:?}\", address = {address:?} }}")
    };
    let nodes: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| [node("first", 0, family), node("second", 1, family)])
        .collect();
    format!(
        "{LISTENERS}\n# two of them\n[[pool]]\nname = \"web\"\nclient_address = \"transparent\"\nnodes = [{}]\n{}",
        nodes.join(", "),
        route(&["www.example.org", "*.apps.example.org"], "web")
    )
}

/// An open flow that has carried bytes both ways, as every TLS connection does.
fn conversing(site: &Site, family: Family) -> Result<(RawTcp, Connection)> {
    let (mut raw, node) = site.established(family)?;
    node.send(b"welcome")?;
    assert_eq!(raw.read(7, PATIENCE)?, b"welcome");
    Ok((raw, node))
}

#[test]
fn a_reload_changes_names_and_keeps_every_flow() -> Result<()> {
    let site = start();
    let (mut raw, node) = conversing(&site, Family::V4)?;
    let changed = configuration(site.lab).replace("\"www.example.org\", ", "\"new.example.org\", ");
    let changed = changed.replace("\"record.example.org\"", "\"gone.example.org\"");
    site.forwarder.write_config(&changed)?;
    let said = verb(&site.forwarder, &["reload"])?;
    for line in ["+ name", "new.example.org", "- name", "www.example.org"] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(site.report(Family::V4, "new.example.org")?.server, "node0");
    let old = site.curl(Family::V4, "www.example.org", "/")?.run()?;
    assert_eq!(old.status, 0, "no longer listed");
    // The open flow goes on although its name is gone, until it is ended on purpose.
    raw.send_data(b"alive")?;
    site.recorded(&raw, node.bytes.len() + 5)?;
    let flows = json(
        &site.forwarder,
        &["flow", "ls", "--name", "record.example.org"],
    )?;
    assert_eq!(flows["flows"][0]["configured"], false, "{flows:#}");
    let said = verb(&site.forwarder, &["reload", "--reset"])?;
    assert!(said.contains("1 flow ended"), "{said}");
    raw.send_data(b"anyone?")?;
    raw.expect("a reset", |segment| segment.flags.has(Flags::RST))?;
    Ok(())
}

#[test]
fn a_broken_file_is_refused_with_its_line_and_changes_nothing() -> Result<()> {
    let site = start();
    let broken = configuration(site.lab).replace("port = 444", "port = 444444");
    site.forwarder.write_config(&broken)?;
    let said = refused(&site.forwarder, &["reload"])?;
    assert!(
        said.contains("444444") && said.contains("stays in use"),
        "{said}"
    );
    assert!(said.contains(".toml:"), "with its place: {said}");
    // By signal too.
    let daemon = site.forwarder.daemon().unwrap();
    daemon.signal(libc::SIGHUP);
    wait_until("a word in the log", PATIENCE, || {
        site.forwarder.log().contains("was not reloaded")
    })?;
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    let fixed = configuration(site.lab).replace("www.example.org", "by-signal.example.org");
    site.forwarder.write_config(&fixed)?;
    daemon.signal(libc::SIGHUP);
    wait_until("the reload", PATIENCE, || {
        site.forwarder.log().contains("configuration reloaded")
    })?;
    assert_eq!(
        site.report(Family::V4, "by-signal.example.org")?.server,
        "node0"
    );
    Ok(())
}

#[test]
fn sizes_of_maps_stay_and_that_is_said() -> Result<()> {
    let site = start();
    let text = std::fs::read_to_string(site.forwarder.config()).unwrap();
    let larger = text.replacen("[entrance]\n", "[entrance]\nmax_flows = 128\n", 1);
    site.forwarder.write_config(&larger)?;
    let said = verb(&site.forwarder, &["reload"])?;
    assert!(said.contains("max_flows stays 65536"), "{said}");
    assert_eq!(site.forwarder.status()?["flows"]["max"], 65_536);
    Ok(())
}

#[test]
fn routes_come_and_go_and_last_if_asked() -> Result<()> {
    let mut site = start();
    let forwarder = &site.forwarder;
    verb(
        forwarder,
        &["route", "add", "shop.example.org", "--pool", "web"],
    )?;
    assert_eq!(site.report(Family::V4, "shop.example.org")?.server, "node0");
    let said = refused(
        forwarder,
        &["route", "add", "shop.example.org", "--pool", "apps"],
    )?;
    assert!(said.contains("route rm shop.example.org"), "{said}");
    let said = refused(
        forwarder,
        &["route", "add", "x.example.org", "--pool", "wep"],
    )?;
    assert!(said.contains("did you mean `web`"), "{said}");
    // An edit outlives a daemon that is killed.
    site.forwarder.kill()?;
    site.forwarder.run()?;
    let forwarder = &site.forwarder;
    assert_eq!(site.report(Family::V6, "shop.example.org")?.server, "node0");
    // And ends with a reload.
    let said = verb(forwarder, &["reload"])?;
    assert!(
        said.contains("- name") && said.contains("shop.example.org"),
        "{said}"
    );
    let gone = || -> Result<bool> {
        Ok(site
            .curl(Family::V4, "shop.example.org", "/")?
            .run()?
            .status
            == 0)
    };
    assert!(gone()?);
    verb(
        forwarder,
        &[
            "route",
            "add",
            "shop.example.org",
            "--pool",
            "web",
            "--persist",
        ],
    )?;
    verb(forwarder, &["reload"])?;
    assert_eq!(site.report(Family::V4, "shop.example.org")?.server, "node0");
    verb(forwarder, &["route", "rm", "shop.example.org", "--persist"])?;
    assert!(gone()?);
    let text = std::fs::read_to_string(forwarder.config()).unwrap();
    assert!(!text.contains("shop.example.org"), "{text}");
    Ok(())
}

#[test]
fn a_drained_node_gets_no_new_flows() -> Result<()> {
    let lab = Lab::builder()
        .clients(2)
        .tunnel(TunnelKind::Ethernet, 2)
        .build()?;
    let web = |at: usize, name: &str| {
        WebServer::start(
            &lab.nodes[at].namespace,
            &lab.pki,
            WebOptions::new(name, 443),
        )
    };
    let _webs = [web(0, "first")?, web(1, "second")?];
    let forwarder = Forwarder::start(&lab, &two_nodes(&lab))?;
    let serves = |client: usize, family| -> Result<String> {
        let entrance = std::net::SocketAddr::new(lab.public(family), 443);
        let client = &lab.clients[client].namespace;
        let curl =
            forwarder_tests::client::Curl::new(client, &lab.pki, "www.example.org", entrance, "/")?;
        let report: forwarder_tests::server::web::Report = curl.json()?;
        Ok(report.server)
    };
    // What `explain` says is what happens.
    for client in 0..2 {
        for family in Family::BOTH {
            let from = lab.clients[client].address(family).to_string();
            let arguments = [
                "explain",
                "www.example.org",
                "--from",
                &from,
                "--port",
                "443",
            ];
            let explained = json(&forwarder, &arguments)?;
            let node = &explained["ways"][0]["node"];
            let expected = format!("{}{family:?}", serves(client, family)?);
            assert_eq!(*node, expected, "{explained:#}");
        }
    }
    let home = serves(0, Family::V4)?;
    let other = if home == "first" { "second" } else { "first" };
    let all = |words: &[&str], name: &str, rest: &[&str]| -> Result<String> {
        let mut said = String::new();
        for family in Family::BOTH {
            let node = format!("{name}{family:?}");
            said += &verb(&forwarder, &[words, &[node.as_str()], rest].concat())?;
        }
        Ok(said)
    };
    let said = all(&["node", "drain"], &home, &[])?;
    assert!(
        said.contains("drain") && said.contains("until it is set anew"),
        "{said}"
    );
    for family in Family::BOTH {
        for client in 0..2 {
            assert_eq!(serves(client, family)?, other);
        }
    }
    let from = lab.clients[0].address(Family::V4).to_string();
    let explained = json(&forwarder, &["explain", "www.example.org", "--from", &from])?;
    let expected = format!("{other}V4");
    assert_eq!(explained["ways"][0]["node"], expected, "{explained:#}");
    // With all of them drained nobody is served, rather than a drained one.
    all(&["node", "maint"], other, &[])?;
    assert!(serves(0, Family::V4).is_err());
    let nodes = json(&forwarder, &["node", "ls"])?;
    let states: Vec<_> = nodes["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| &node["state"])
        .collect();
    assert!(
        states
            .iter()
            .all(|state| *state == "drain" || *state == "maint"),
        "{nodes:#}"
    );
    all(&["node", "ready"], &home, &[])?;
    assert_eq!(serves(0, Family::V4)?, home);
    all(&["node", "ready"], other, &[])?;
    all(&["node", "weight"], &home, &["0"])?;
    assert_eq!(serves(0, Family::V4)?, other);
    let said = refused(&forwarder, &["node", "drain", "thrid"])?;
    assert!(said.contains("no node `thrid`"), "{said}");
    Ok(())
}

#[test]
fn a_drained_node_keeps_its_flows_until_they_are_reset() -> Result<()> {
    let site = start();
    let (mut raw, node) = conversing(&site, Family::V4)?;
    let address = site.lab.nodes[0].socket(Family::V4, 7000).to_string();
    verb(&site.forwarder, &["node", "drain", &address])?;
    raw.send_data(b"still here")?;
    site.recorded(&raw, node.bytes.len() + 10)?;
    node.send(b"so am I")?;
    assert_eq!(raw.read(7, PATIENCE)?, b"so am I");
    assert!(site.established(Family::V4).is_err(), "a new flow");
    let said = verb(&site.forwarder, &["node", "maint", &address, "--reset"])?;
    assert!(said.contains("1 flow ended"), "{said}");
    raw.send_data(b"anyone?")?;
    raw.expect("a reset", |segment| segment.flags.has(Flags::RST))?;
    Ok(())
}

#[test]
fn what_nobody_confirms_is_removed() -> Result<()> {
    let mut site = start();
    site.forwarder.stop();
    let run = |time: &str| -> Result<Command> {
        let mut command = site.forwarder.command()?;
        command.args(["run", "--confirm", time]);
        Ok(command)
    };
    let unconfirmed = output(&mut run("1s")?)?;
    let said = String::from_utf8_lossy(&unconfirmed.stderr).into_owned();
    assert_eq!(unconfirmed.status.code(), Some(3), "{said}");
    assert!(said.contains("not confirmed in time"), "{said}");
    let pins = std::fs::read_dir(site.forwarder.bpffs()).map(Iterator::count);
    assert_eq!(pins.unwrap_or_default(), 0, "pins are left");
    // A busy machine may take longer to start it than the first gives it.
    for seconds in [15, 90] {
        let limit = Duration::from_secs(seconds);
        let mut confirmed = run(&format!("{seconds}s"))?
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answered = wait_until("a daemon to confirm", limit, || {
            verb(&site.forwarder, &["confirm"]).is_ok_and(|said| said.starts_with("confirmed"))
        });
        // Its time began before it could answer.
        if answered.is_ok() {
            std::thread::sleep(limit + Duration::from_secs(1));
        }
        let pins = std::fs::read_dir(site.forwarder.bpffs()).map_or(0, Iterator::count);
        let goes_on = confirmed.try_wait().unwrap().is_none() && pins > 0;
        let _ = confirmed.kill();
        let _ = confirmed.wait();
        if answered.is_ok() {
            assert!(goes_on, "it ended although it was confirmed");
            return Ok(());
        }
    }
    panic!("no daemon to confirm");
}

#[test]
fn a_killed_flow_is_reset_at_both_ends() -> Result<()> {
    let site = start();
    let (mut raw, node) = conversing(&site, Family::V4)?;
    let (mut other, other_node) = conversing(&site, Family::V6)?;
    let said = refused(&site.forwarder, &["flow", "kill"])?;
    assert!(
        said.contains("all=true") || said.contains("--all"),
        "{said}"
    );
    let client = raw.local.to_string();
    let flows = json(&site.forwarder, &["flow", "ls"])?;
    assert_eq!(
        flows["flows"].as_array().map(Vec::len),
        Some(2),
        "{flows:#}"
    );
    let said = verb(&site.forwarder, &["flow", "kill", "--client", &client])?;
    assert!(said.contains("1 flow ended"), "{said}");
    raw.send_data(b"anyone?")?;
    raw.expect("a reset", |segment| segment.flags.has(Flags::RST))?;
    // The node's next packet draws one too: its recorder sees the connection broken.
    let _ = node.send(b"still there?");
    wait_until("a reset at the node", PATIENCE, || node.send(b"?").is_err())?;
    other.send_data(b"unharmed")?;
    site.recorded(&other, other_node.bytes.len() + 8)?;
    Ok(())
}

#[test]
fn curl_speaks_to_the_control_socket() -> Result<()> {
    let site = start();
    let socket = site.forwarder.control()?;
    let curl = |arguments: &[&str]| -> Result<(u16, serde_json::Value)> {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "-w", "\n%{http_code}", "--unix-socket"])
            .arg(&socket);
        let text = run(command.args(arguments))?;
        let (body, status) = text.rsplit_once('\n').unwrap();
        let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        Ok((status.trim().parse().unwrap(), body))
    };
    for path in ["status", "listeners", "routes", "pools", "nodes", "flows"] {
        let (status, body) = curl(&[&format!("http://forwarder/v1/{path}")])?;
        assert_eq!(status, 200, "{path}: {body:#}");
        assert!(!body.as_object().unwrap().is_empty(), "{path}");
    }
    let add = [
        "-X",
        "PUT",
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"names": ["shop.example.org"], "pool": "web"}"#,
        "http://forwarder/v1/routes",
    ];
    let (status, body) = curl(&add)?;
    assert_eq!(
        (
            status,
            &body["difference"]["names"]["added"]["shop.example.org"]
        ),
        (200, &"web".into())
    );
    assert_eq!(site.report(Family::V4, "shop.example.org")?.server, "node0");
    let (status, body) = curl(&add)?;
    assert_eq!(status, 409, "{body:#}");
    let (status, _) = curl(&[
        "-X",
        "DELETE",
        "http://forwarder/v1/routes/shop.example.org",
    ])?;
    assert_eq!(status, 200);
    for (arguments, expected) in [
        (&["http://forwarder/nonsense"][..], 404),
        (&["-X", "POST", "http://forwarder/v1/routes"], 405),
        (&["-X", "DELETE", "http://forwarder/v1/flows"], 400),
        (
            &["-X", "DELETE", "http://forwarder/v1/routes/zz.example.org"],
            404,
        ),
        (
            &["-X", "PUT", "-d", "{}", "http://forwarder/v1/routes"],
            400,
        ),
        (&["http://forwarder/v1/explain?name=www.example.org"], 400),
        (
            &["http://forwarder/v1/explain?name=www.example.org&from=x"],
            400,
        ),
    ] {
        let (status, body) = curl(arguments)?;
        assert_eq!(status, expected, "{arguments:?}: {body:#}");
        assert!(body["error"]["message"].is_string(), "{body:#}");
        assert!(body["error"]["fix"].is_string(), "{body:#}");
    }
    Ok(())
}

/// Each verb as a newcomer may get it wrong: what is said must lead on, to a person and to a program.
#[test]
fn wrong_arguments_are_answered_with_a_way_out() -> Result<()> {
    let site = start();
    let forwarder = &site.forwarder;
    let route = |words: &[&'static str]| [&["route"], words].concat();
    let cases: [(Vec<&str>, &str); 18] = [
        (
            route(&["add", "x.example.org", "--pool", "wep"]),
            "did you mean `web`",
        ),
        (
            route(&["add", "x.example.org", "--pool", "docker"]),
            "`forwarder pool ls`",
        ),
        (
            route(&["add", "https://x.example.org", "--pool", "web"]),
            "www.example.org",
        ),
        (
            route(&["add", "www.example.org", "--pool", "apps"]),
            "route rm www.example.org",
        ),
        (
            route(&[
                "add",
                "x.example.org",
                "--pool",
                "web",
                "--listener",
                "htps",
            ]),
            "did you mean `https`",
        ),
        (
            route(&["rm", "ww.example.org"]),
            "did you mean `www.example.org`",
        ),
        (route(&["rm", "shop.example.com"]), "`forwarder route ls`"),
        (route(&["rm", "a b"]), "www.example.org"),
        (vec!["node", "drain", "10.9.9.9"], "`forwarder node ls`"),
        (vec!["node", "ready", "nowhere"], "`forwarder node ls`"),
        (
            vec!["node", "maint", "nowhere", "--reset"],
            "`forwarder node ls`",
        ),
        (
            vec!["node", "weight", "nowhere", "3"],
            "`forwarder node ls`",
        ),
        (
            vec!["node", "weight", "10.9.9.9", "3", "--pool", "wep"],
            "did you mean `web`",
        ),
        (
            vec!["flow", "ls", "--node", "nowhere"],
            "`forwarder node ls`",
        ),
        (
            vec!["flow", "ls", "--name", "ww.example.org"],
            "did you mean `www.example.org`",
        ),
        (vec!["flow", "kill"], "--all"),
        (
            vec!["flow", "kill", "--node", "nowhere"],
            "`forwarder node ls`",
        ),
        (
            vec!["flow", "kill", "--name", "ww.example.org"],
            "did you mean `www.example.org`",
        ),
    ];
    for (arguments, way_out) in &cases {
        let said = refused(forwarder, arguments)?;
        assert!(
            said.starts_with("forwarder: ") && said.contains(way_out),
            "{arguments:?}: {said}"
        );
        let output = output(forwarder.command()?.args(arguments).arg("--json"))?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let (message, fix) = (&json["error"]["message"], &json["error"]["fix"]);
        assert!(
            message.is_string() && json["error"]["status"].is_u64(),
            "{json:#}"
        );
        assert!(fix.as_str().unwrap().contains(way_out), "{json:#}");
    }
    // What the file cannot say is not written, and not put to use either.
    let node = site.lab.nodes[0].socket(Family::V4, 443).to_string();
    let said = refused(forwarder, &["node", "weight", &node, "0", "--persist"])?;
    assert!(said.contains("leave --persist out"), "{said}");
    let said = verb(forwarder, &["reload"])?;
    assert!(said.contains("nothing differs"), "{said}");
    // A broken file: the findings are in the JSON too.
    let broken = configuration(site.lab).replace("port = 444", "port = 444444");
    forwarder.write_config(&broken)?;
    let output = output(forwarder.command()?.args(["reload", "--json"]))?;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &json["error"]["report"]["diagnostics"][0];
    assert_eq!(
        (output.status.code(), &finding["code"]),
        (Some(1), &"out-of-range".into())
    );
    let said = refused(
        forwarder,
        &[
            "route",
            "add",
            "y.example.org",
            "--pool",
            "web",
            "--persist",
        ],
    )?;
    assert!(said.contains("444444") && said.contains(".toml:"), "{said}");
    assert_eq!(
        site.curl(Family::V4, "y.example.org", "/")?.run()?.status,
        0
    );
    Ok(())
}

#[test]
fn watchers_see_who_comes_and_who_is_refused() -> Result<()> {
    let site = start();
    let mut command = site.forwarder.command()?;
    command
        .args(["watch", "--refused", "--json"])
        .stdout(Stdio::piped());
    let mut watcher = command.spawn().unwrap();
    let lines = BufReader::new(watcher.stdout.take().unwrap());
    let (to, from) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines.lines().map_while(std::result::Result::ok) {
            if to.send(line).is_err() {
                break;
            }
        }
    });
    // It takes a moment until it listens; until then nothing is told.
    let event = || -> Result<Option<String>> {
        for _ in 0..20 {
            site.report(Family::V4, "www.example.org")?;
            site.curl(Family::V4, "private.example.org", "/")?.run()?;
            if let Ok(line) = from.recv_timeout(Duration::from_secs(1)) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    };
    let told = event();
    let _ = watcher.kill();
    let _ = watcher.wait();
    let told: serde_json::Value = serde_json::from_str(&told?.expect("an event")).unwrap();
    assert_eq!(told["event"], "refused", "{told:#}");
    assert_eq!(told["name"], "private.example.org");
    assert_eq!(told["reason"], "unlisted_name");
    drop(from);
    reader.join().unwrap();
    Ok(())
}
