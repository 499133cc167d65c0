//! The control socket as curl and other users meet it: every documented request, and who may send which.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use forwarder_tests::Result;
use forwarder_tests::command::{find, output, run};
use forwarder_tests::error::Context;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::raw::PATIENCE;
use forwarder_tests::site::Site;
use serde_json::{Value, json};

/// What the documentation promises.
const DOCUMENTATION: &str = include_str!("../../docs/control.md");
/// A group that no machine has.
const GROUP: u32 = 64_990;
/// A user that no machine has.
const USER: u32 = 64_991;

fn start() -> Site {
    Site::build(Lab::builder().clients(2).tunnel(TunnelKind::Ethernet, 2))
}

/// A request as the documentation writes it, one that does it, and the status it must get from somebody who
/// may do everything.
fn requests(node: &str) -> Vec<(&'static str, String, Option<Value>, u16)> {
    let get = |documented: &'static str, path: &str| (documented, path.to_owned(), None, 200);
    vec![
        get("GET /v1/status", "status"),
        get("GET /v1/listeners", "listeners"),
        get("GET /v1/routes", "routes"),
        get("GET /v1/pools", "pools"),
        get("GET /v1/nodes", "nodes"),
        get(
            "GET /v1/flows",
            "flows?client=198.18.0.2&name=www.example.org",
        ),
        get(
            "GET /v1/explain",
            "explain?name=www.example.org&from=198.51.100.4&port=443",
        ),
        (
            "PUT /v1/routes",
            "routes".to_owned(),
            Some(json!({"names": ["shop.example.org"], "pool": "web", "listeners": ["https"]})),
            200,
        ),
        (
            "DELETE /v1/routes/{name}",
            "routes/shop.example.org?reset=true".to_owned(),
            None,
            200,
        ),
        (
            "DELETE /v1/routes",
            "routes?persist=false".to_owned(),
            Some(json!({"names": ["record.example.org"]})),
            200,
        ),
        (
            "POST /v1/nodes/{node}/state",
            format!("nodes/{node}/state?reset=false"),
            Some(json!({"state": "drain"})),
            200,
        ),
        (
            "POST /v1/nodes/{node}/weight",
            format!("nodes/{node}/weight"),
            Some(json!({"weight": 3, "pool": "web"})),
            200,
        ),
        (
            "DELETE /v1/flows",
            "flows?client=198.18.0.2".to_owned(),
            None,
            200,
        ),
        ("POST /v1/confirm", "confirm".to_owned(), None, 200),
        (
            "POST /v1/reload",
            "reload?reset=false&confirm=10m".to_owned(),
            None,
            200,
        ),
    ]
}

/// The requests in the documentation's tables, their parameters left out.
fn documented() -> BTreeSet<String> {
    let rows = DOCUMENTATION.lines().filter_map(|line| {
        let request = line.strip_prefix("| `")?.split('`').next()?;
        let request = request.split('?').next()?;
        request.contains(" /v1/").then(|| request.to_owned())
    });
    rows.collect()
}

/// curl, where every user may run it, as a user and a member of groups; the first one is the primary group.
fn curl(lab: &Lab, who: Option<(u32, &[u32])>) -> Result<Command> {
    let copy: PathBuf = lab.folder().join("curl");
    if !copy.exists() {
        std::fs::copy(find("curl")?, &copy).context(|| "copying curl".to_owned())?;
        for path in [lab.folder(), &copy] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
                .context(|| "letting everybody run curl".to_owned())?;
        }
    }
    let mut command = Command::new(copy);
    if let Some((user, groups)) = who {
        let groups = groups.to_vec();
        let become_user = move || {
            // SAFETY: the pointer and the length are those of a list that lives on; the others take
            // plain numbers. All are system calls and allocate nothing.
            let failed = unsafe {
                libc::setgroups(groups.len(), groups.as_ptr()) != 0
                    || libc::setgid(groups[0]) != 0
                    || libc::setuid(user) != 0
            };
            if failed {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only.
        unsafe { command.pre_exec(become_user) };
    }
    Ok(command)
}

/// What the socket answers curl: the status, and the JSON; `None` if curl could not connect.
fn ask(
    command: &mut Command,
    socket: &Path,
    documented: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Option<(u16, Value)>> {
    let method = documented.split(' ').next().unwrap_or_default();
    command
        .args(["-sS", "-m", "20", "-w", "\n%{http_code}", "-X", method])
        .arg("--unix-socket")
        .arg(socket)
        .arg(format!("http://forwarder/v1/{path}"));
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d"]);
        command.arg(body.to_string());
    }
    let done = output(command)?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.code() == Some(7) {
        return Ok(None);
    }
    assert!(done.status.success(), "{documented}: {done:?}");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    Ok(Some((status.trim().parse().expect("a number"), body)))
}

#[test]
fn every_documented_request_does_what_it_says() -> Result<()> {
    let site = start();
    let socket = site.forwarder.control()?;
    let node = site.lab.nodes[0].socket(Family::V4, 443).to_string();
    let all = requests(&node);
    let mut tried: BTreeSet<String> = all.iter().map(|own| own.0.to_owned()).collect();
    // Followed by another test.
    tried.insert("GET /v1/events".to_owned());
    assert_eq!(tried, documented(), "docs/control.md and this test differ");

    let (mut raw, node_end) = site.established(Family::V4)?;
    for (documented, path, body, expected) in &all {
        let answer = ask(
            &mut curl(site.lab, None)?,
            &socket,
            documented,
            path,
            body.as_ref(),
        )?;
        let (status, answer) = answer.expect("root may connect");
        assert_eq!(status, *expected, "{documented}: {answer:#}");
        let said = answer.as_object().expect("an object");
        let field = |name: &str| said.get(name).unwrap_or(&Value::Null);
        match *documented {
            "GET /v1/listeners" => assert_eq!(field("listeners").as_array().unwrap().len(), 3),
            "GET /v1/nodes" => assert!(answer.to_string().contains(&node), "{answer:#}"),
            "GET /v1/explain" => assert_eq!(answer["ways"][0]["node"], *node, "{answer:#}"),
            "PUT /v1/routes" => {
                let added = &answer["difference"]["names"]["added"];
                assert_eq!(added["shop.example.org"], "web (on https)", "{answer:#}");
                let report = site.report(Family::V4, "shop.example.org")?;
                assert_eq!(report.server, "node0");
            }
            "DELETE /v1/routes/{name}" => {
                let gone = site.curl(Family::V4, "shop.example.org", "/")?.run()?;
                assert_eq!(gone.status, 0, "no longer listed");
            }
            "POST /v1/nodes/{node}/state" => {
                let refused = site.curl(Family::V4, "www.example.org", "/")?.run()?;
                assert_eq!(refused.status, 0, "its only node is drained");
            }
            "POST /v1/confirm" => assert_eq!(*field("waited"), false),
            "POST /v1/reload" => {
                let count = |name| field(name).as_array().map(Vec::len);
                assert_eq!((count("edits"), count("kept")), (Some(3), Some(2)));
                let ready = json!({"state": "ready"});
                let request = "POST /v1/nodes/{node}/state";
                let path = format!("nodes/{node}/state");
                let mut curl = curl(site.lab, None)?;
                ask(&mut curl, &socket, request, &path, Some(&ready))?;
                assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
            }
            _ => assert!(!said.is_empty(), "{documented}"),
        }
    }
    // The flow belonged to another client than the one that was ended.
    raw.send_data(b"still here")?;
    site.recorded(&raw, node_end.bytes.len() + 10)?;
    let path = format!("flows?client={}", raw.local);
    let request = "DELETE /v1/flows";
    let answer = ask(&mut curl(site.lab, None)?, &socket, request, &path, None)?;
    assert_eq!(answer.expect("an answer").1["ended"], 1);
    // Both ends are told at once, although neither has said a word since, and the node never one.
    raw.expect("a reset", |segment| segment.flags.has(Flags::RST))?;
    site.recorder
        .wait_for("the node's reset", PATIENCE, |own| {
            own.peer == raw.local && own.end == forwarder_tests::server::recorder::End::Reset
        })?;
    Ok(())
}

#[test]
fn events_are_followed_by_curl() -> Result<()> {
    let site = start();
    let socket = site.forwarder.control()?;
    let mut command = curl(site.lab, None)?;
    command
        .args(["-sSN", "-m", "60", "-i", "--unix-socket"])
        .arg(&socket)
        .arg("http://forwarder/v1/events?name=www.example.org")
        .stdout(Stdio::piped());
    let mut following = command.spawn().context(|| "starting curl".to_owned())?;
    let lines = BufReader::new(following.stdout.take().expect("a pipe"));
    let mut lines = lines.lines().map_while(std::result::Result::ok);
    let mut events = Vec::new();
    let mut read = || -> Result<()> {
        let typed = |line: &String| line.eq_ignore_ascii_case("content-type: text/event-stream");
        assert!(lines.by_ref().any(|line| typed(&line)), "no event stream");
        // The greeting says that nothing is missed from now on.
        assert!(lines.by_ref().any(|line| line.starts_with(':')));
        site.curl(Family::V4, "private.example.org", "/")?.run()?;
        site.report(Family::V4, "www.example.org")?;
        let mut kind = String::new();
        for line in lines.by_ref() {
            if let Some(word) = line.strip_prefix("event: ") {
                kind = word.to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let told: Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(told["event"], *kind);
                let last = kind == "closed";
                events.push(told);
                if last {
                    break;
                }
            }
        }
        Ok(())
    };
    let outcome = read();
    let _ = following.kill();
    let _ = following.wait();
    outcome?;
    let words: Vec<_> = events.iter().map(|told| told["event"].as_str()).collect();
    assert_eq!(words, [Some("opened"), Some("closed")], "{events:#?}");
    let client = site.lab.clients[0].address(Family::V4).to_string();
    for told in &events {
        assert!(told["client"].as_str().unwrap().starts_with(&client));
        assert_eq!(
            (&told["name"], &told["pool"]),
            (&json!("www.example.org"), &json!("web"))
        );
        assert_eq!(told["id"], events[0]["id"]);
    }
    assert!(events[1]["down_bytes"].as_u64() > Some(500), "{events:#?}");
    Ok(())
}

#[test]
fn members_of_the_group_may_change_things_and_nobody_else_gets_in() -> Result<()> {
    let mut site = start();
    site.forwarder.stop();
    site.forwarder.with_group("forwarder", GROUP)?;
    site.forwarder.run()?;
    let socket = site.forwarder.control()?;
    let file = std::fs::metadata(&socket).context(|| "looking at the socket".to_owned())?;
    assert_eq!(
        (file.mode() & 0o7777, file.uid(), file.gid()),
        (0o660, 0, GROUP)
    );
    let add = |name: &str| json!({"names": [name], "pool": "web"});
    let put = "PUT /v1/routes";

    // As a primary and as a further group.
    for (name, groups) in [
        ("a.example.org", &[GROUP][..]),
        ("b.example.org", &[USER, GROUP]),
    ] {
        let member = || curl(site.lab, Some((USER, groups)));
        let look = ask(&mut member()?, &socket, "GET /v1/nodes", "nodes", None)?;
        assert_eq!(look.expect("it may connect").0, 200);
        let change = ask(&mut member()?, &socket, put, "routes", Some(&add(name)))?;
        assert_eq!(change.expect("it may connect").0, 200);
        assert_eq!(site.report(Family::V4, name)?.server, "node0");
    }

    let outsider = || curl(site.lab, Some((USER, &[USER])));
    let look = ask(&mut outsider()?, &socket, "GET /v1/nodes", "nodes", None)?;
    assert_eq!(look, None, "the file's mode keeps it out");

    // Somebody may open the socket to all on purpose: then all may look, and still change nothing.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))
        .context(|| "opening the socket to all".to_owned())?;
    let node = site.lab.nodes[0].socket(Family::V4, 443).to_string();
    for (documented, path, body, _) in requests(&node) {
        let answer = ask(&mut outsider()?, &socket, documented, &path, body.as_ref())?;
        let (status, answer) = answer.expect("now it may connect");
        if documented.starts_with("GET") {
            assert_eq!(status, 200, "{documented}: {answer:#}");
        } else {
            assert_eq!(status, 403, "{documented}: {answer:#}");
            let fix = answer["error"]["fix"].as_str().unwrap_or_default();
            assert!(fix.contains("`forwarder`"), "{answer:#}");
        }
    }
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    assert_eq!(site.report(Family::V4, "a.example.org")?.server, "node0");
    let log = site.forwarder.log();
    assert!(log.contains("control request denied"), "{log}");
    Ok(())
}

#[test]
fn without_the_group_only_root_gets_in() -> Result<()> {
    let site = start();
    let socket = site.forwarder.control()?;
    let file = std::fs::metadata(&socket).context(|| "looking at the socket".to_owned())?;
    assert_eq!((file.mode() & 0o7777, file.uid()), (0o660, 0));
    let mut stranger = curl(site.lab, Some((USER, &[USER])))?;
    let look = ask(&mut stranger, &socket, "GET /v1/nodes", "nodes", None)?;
    assert_eq!(look, None);
    // The verbs of the command line say so, too.
    let verb = run(site.forwarder.command()?.args(["node", "ls"]))?;
    assert!(verb.contains(&site.lab.nodes[0].address(Family::V4).to_string()));
    Ok(())
}
