//! Configuration files of a running forwarder: broken ones, drop-ins, and changes that are noticed by themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::{output, run};
use forwarder_tests::forwarder::{Forwarder, entrance_section};
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::pinned;
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::PATIENCE;
use forwarder_tests::site::{Site, configuration, pool, route};
use serde::Deserialize;

/// A change is looked at a second after the last event; the machine may be busy.
const NOTICED: Duration = Duration::from_secs(20);
/// By then it would have been noticed.
const NOT_NOTICED: Duration = Duration::from_millis(2_500);

fn start() -> Site {
    Site::build(Lab::builder().clients(1).tunnel(TunnelKind::Ethernet, 2))
}

fn verb(forwarder: &Forwarder<'_>, arguments: &[&str]) -> Result<String> {
    run(forwarder.command()?.args(arguments))
}

/// What a verb says on either stream when it must fail.
fn refused(forwarder: &Forwarder<'_>, arguments: &[&str]) -> Result<String> {
    let output = output(forwarder.command()?.args(arguments))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    Ok(said)
}

/// The drop-in of this name beside the configuration file.
fn drop_in(site: &Site, name: &str) -> PathBuf {
    let directory = site.forwarder.config().with_file_name("conf.d");
    fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

fn serves(site: &Site, name: &str) -> bool {
    site.report(Family::V4, name).is_ok()
}

/// What is in use, as the daemon says it and as the kernel has it.
fn in_use(site: &Site) -> Result<String> {
    let mut all = String::new();
    for verb in ["route", "pool", "node", "listener"] {
        let text = run(site.forwarder.command()?.args([verb, "ls", "--json"]))?;
        // Counters go on.
        let counts = |line: &&str| {
            [
                "\"opened\"",
                "\"refused\"",
                "\"flows\"",
                "\"accepted\"",
                "\"syn_",
            ]
            .iter()
            .any(|counter| line.trim_start().starts_with(counter))
        };
        all.extend(text.lines().filter(|line| !counts(line)));
    }
    let maps = pinned::configuration(site.forwarder.bpffs()).unwrap();
    assert!(
        maps.values()
            .all(|bytes| bytes.iter().any(|byte| *byte != 0))
    );
    Ok(format!("{all}\n{maps:?}"))
}

#[derive(Deserialize)]
struct Table {
    base: String,
    case: Vec<Case>,
}

/// One broken configuration of the table that the daemon's own tests are held against too.
#[derive(Deserialize)]
struct Case {
    what: String,
    from: Option<String>,
    to: Option<String>,
    text: Option<String>,
    drop_in: Option<String>,
    code: String,
}

impl Case {
    /// Puts it where the daemon reads it; returns the file and line that must be named.
    fn write(&self, site: &Site, base: &str) -> String {
        let main = match (&self.from, &self.to, &self.text) {
            (Some(from), Some(to), _) => base.replace(from.as_str(), to),
            (_, _, Some(text)) => text.clone(),
            _ => base.to_owned(),
        };
        let beside = drop_in(site, "site.toml");
        let _ = fs::remove_file(&beside);
        let mut place = None;
        let files = [
            (site.forwarder.config(), Some(&main)),
            (beside.as_path(), self.drop_in.as_ref()),
        ];
        for (path, text) in files {
            let Some(text) = text else { continue };
            if let Some((before, _)) = text.split_once('⟨') {
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
                place = Some(format!("{}:{line}:{column}", path.display()));
            }
            fs::write(path, text.replace('⟨', "")).unwrap();
        }
        place.unwrap()
    }
}

#[test]
fn no_broken_configuration_is_put_to_use() -> Result<()> {
    let table = include_str!("../../forwarder/tests/broken/cases.toml");
    let Table { base, case: cases } = toml::from_str(table).unwrap();
    let site = start();
    let (mut raw, node) = site.established(Family::V4)?;
    let before = in_use(&site)?;
    let good = fs::read(site.forwarder.config()).unwrap();
    for case in &cases {
        let place = case.write(&site, &base);
        let said = refused(&site.forwarder, &["reload"])?;
        for expected in [place.as_str(), &case.code, "stays in use", "= help:"] {
            assert!(
                said.contains(expected),
                "{}: no {expected}:\n{said}",
                case.what
            );
        }
    }
    assert!(cases.len() > 100);
    assert_eq!(in_use(&site)?, before);
    // By signal the log has the finding.
    let daemon = site.forwarder.daemon().unwrap();
    for case in cases.iter().step_by(9) {
        case.write(&site, &base);
        let refusals = || site.forwarder.log().matches("was not reloaded").count();
        let (so_far, length) = (refusals(), site.forwarder.log().len());
        daemon.signal(libc::SIGHUP);
        wait_until("a refusal in the log", PATIENCE, || refusals() > so_far)?;
        let log = site.forwarder.log().split_off(length);
        assert!(
            log.contains(&format!("\"code\":\"{}\"", case.code)),
            "{}: {log}",
            case.what
        );
    }
    assert_eq!(in_use(&site)?, before);
    // The open flow went on all the while, and new ones are served as before.
    raw.send_data(b"still here")?;
    site.recorded(&raw, node.bytes.len() + 10)?;
    assert_eq!(site.report(Family::V6, "www.example.org")?.server, "node0");
    fs::remove_file(drop_in(&site, "site.toml")).unwrap();
    fs::write(site.forwarder.config(), good).unwrap();
    let said = verb(&site.forwarder, &["reload"])?;
    assert!(said.contains("nothing differs"), "{said}");
    Ok(())
}

#[test]
fn drop_ins_are_part_of_the_configuration() -> Result<()> {
    let mut site = start();
    let shop = drop_in(&site, "10-shop.toml");
    let blog = drop_in(&site, "20-blog.toml");
    let text = format!(
        "# the shop\n{}\n{}",
        pool("shop", "transparent", &[(&site.lab.nodes[1], 443)]),
        route(&["shop.example.org"], "shop")
    );
    fs::write(&shop, &text).unwrap();
    fs::write(&blog, route(&["blog.example.org"], "shop")).unwrap();
    let said = verb(&site.forwarder, &["check", "--offline"])?;
    assert!(said.contains("and 2 files of conf.d: fine"), "{said}");
    let said = verb(&site.forwarder, &["reload"])?;
    assert!(
        said.contains("+ name") && said.contains("blog.example.org"),
        "{said}"
    );
    for name in ["shop.example.org", "blog.example.org"] {
        assert_eq!(site.report(Family::V4, name)?.server, "node1");
    }
    // An edit goes to the file of its pool, one more to the main file.
    let add = |name: &str, pool: &str| {
        verb(
            &site.forwarder,
            &["route", "add", name, "--pool", pool, "--persist"],
        )
    };
    let said = add("sale.example.org", "shop")?;
    assert!(
        said.contains("written to") && said.contains("conf.d/10-shop.toml"),
        "{said}"
    );
    add("more.example.org", "web")?;
    let of = |path: &Path| fs::read_to_string(path).unwrap();
    assert!(of(&shop).starts_with(&text) && of(&shop).contains("sale.example.org"));
    assert!(of(site.forwarder.config()).contains("more.example.org"));
    let node = site.lab.nodes[1].socket(Family::V4, 443).to_string();
    let weigh = ["node", "weight", &node, "7", "--pool", "shop", "--persist"];
    verb(&site.forwarder, &weigh)?;
    assert!(of(&shop).contains("weight = 7"), "{}", of(&shop));
    verb(
        &site.forwarder,
        &[
            "route",
            "rm",
            "shop.example.org",
            "more.example.org",
            "--persist",
        ],
    )?;
    assert!(!of(&shop).contains("\"shop.example.org\""), "{}", of(&shop));
    assert!(!of(site.forwarder.config()).contains("more.example.org"));
    let said = verb(&site.forwarder, &["reload"])?;
    assert!(said.contains("nothing differs"), "{said}");
    // What stands twice is refused with both places.
    fs::write(&blog, format!("\n{}", route(&["sale.example.org"], "web"))).unwrap();
    let said = refused(&site.forwarder, &["reload"])?;
    for expected in [
        "20-blog.toml:3:10",
        "10-shop.toml:",
        "again here",
        "first here",
    ] {
        assert!(said.contains(expected), "no {expected}: {said}");
    }
    let checked = refused(&site.forwarder, &["check", "--offline"])?;
    assert!(checked.contains("20-blog.toml:3:10"), "{checked}");
    assert!(serves(&site, "blog.example.org"), "the running one stays");
    // A daemon that starts reads them too, and an edit outlives it as long as no file changes.
    fs::write(&blog, route(&["blog.example.org"], "shop")).unwrap();
    verb(&site.forwarder, &["reload"])?;
    verb(
        &site.forwarder,
        &["route", "add", "edit.example.org", "--pool", "shop"],
    )?;
    site.forwarder.kill()?;
    site.forwarder.run()?;
    assert!(serves(&site, "blog.example.org") && serves(&site, "edit.example.org"));
    site.forwarder.kill()?;
    fs::remove_file(&blog).unwrap();
    site.forwarder.run()?;
    assert!(!serves(&site, "blog.example.org") && !serves(&site, "edit.example.org"));
    assert!(serves(&site, "sale.example.org"));
    Ok(())
}

/// The site's configuration with one more name, and with the files watched.
fn watched(site: &Site, name: &str) -> String {
    let entrance = entrance_section(site.lab);
    let rest = configuration(site.lab);
    format!("{entrance}watch = true\n{rest}\n{}", route(&[name], "web"))
}

fn noticed(site: &Site, name: &str) -> Result<()> {
    wait_until(name, NOTICED, || serves(site, name))
}

#[test]
fn changes_are_noticed_however_they_are_made() -> Result<()> {
    let site = start();
    let main = site.forwarder.config().to_owned();
    let beside = |name: &str| main.with_file_name(name);
    let (mut raw, node) = site.established(Family::V4)?;
    // Nothing is followed unless asked for.
    fs::write(&main, watched(&site, "one.example.org")).unwrap();
    std::thread::sleep(NOT_NOTICED);
    assert!(!serves(&site, "one.example.org"));
    verb(&site.forwarder, &["reload"])?;
    assert!(serves(&site, "one.example.org"));
    // In place.
    fs::write(&main, watched(&site, "in-place.example.org")).unwrap();
    noticed(&site, "in-place.example.org")?;
    // The difference is logged once it is in force.
    wait_until("the difference in the log", NOTICED, || {
        let log = site.forwarder.log();
        let line =
            |start: &str, name: &str| log.lines().any(|l| l.contains(start) && l.contains(name));
        line("+ name", "in-place.example.org") && line("- name", "one.example.org")
    })?;
    // As vim does: the old file becomes the backup, a new one is written, the backup goes.
    fs::rename(&main, beside("backup~")).unwrap();
    fs::write(&main, watched(&site, "vim.example.org")).unwrap();
    fs::remove_file(beside("backup~")).unwrap();
    noticed(&site, "vim.example.org")?;
    // As `mv` does.
    fs::write(beside("new"), watched(&site, "mv.example.org")).unwrap();
    fs::rename(beside("new"), &main).unwrap();
    noticed(&site, "mv.example.org")?;
    // As Kubernetes does: a link through another one, which is swapped.
    let volume = |version: &str, name: &str| {
        fs::create_dir(beside(version)).unwrap();
        fs::write(beside(version).join("f.toml"), watched(&site, name)).unwrap();
        symlink(version, beside("..data_tmp")).unwrap();
        fs::rename(beside("..data_tmp"), beside("..data")).unwrap();
    };
    volume("..1", "first.example.org");
    symlink("..data/f.toml", beside("link")).unwrap();
    fs::rename(beside("link"), &main).unwrap();
    noticed(&site, "first.example.org")?;
    volume("..2", "second.example.org");
    noticed(&site, "second.example.org")?;
    // Where the link leads to, in place.
    fs::write(
        beside("..2").join("f.toml"),
        watched(&site, "behind.example.org"),
    )
    .unwrap();
    noticed(&site, "behind.example.org")?;
    // Gone for a while, nothing ends.
    fs::remove_file(&main).unwrap();
    wait_until("a word in the log", NOTICED, || {
        site.forwarder.log().contains("until the files can be read")
    })?;
    assert!(serves(&site, "behind.example.org"));
    fs::write(&main, watched(&site, "back.example.org")).unwrap();
    noticed(&site, "back.example.org")?;
    raw.send_data(b"still here")?;
    site.recorded(&raw, node.bytes.len() + 10)?;
    Ok(())
}

#[test]
fn a_directory_of_drop_ins_may_appear_later() -> Result<()> {
    let site = start();
    let main = site.forwarder.config().to_owned();
    fs::write(&main, watched(&site, "one.example.org")).unwrap();
    verb(&site.forwarder, &["reload"])?;
    let extra = drop_in(&site, "extra.toml");
    fs::write(&extra, route(&["extra.example.org"], "web")).unwrap();
    noticed(&site, "extra.example.org")?;
    // A new directory in the place of the old one.
    let directory = extra.parent().unwrap();
    fs::rename(directory, main.with_file_name("old")).unwrap();
    fs::create_dir(directory).unwrap();
    fs::write(&extra, route(&["again.example.org"], "web")).unwrap();
    noticed(&site, "again.example.org")?;
    fs::write(&extra, route(&["third.example.org"], "web")).unwrap();
    noticed(&site, "third.example.org")?;
    // Broken: refused once, with its place, and the running one stays.
    let before = in_use(&site)?;
    fs::write(&extra, route(&["fourth.example.org"], "wep")).unwrap();
    let refusals = || site.forwarder.log().matches("was not reloaded").count();
    wait_until("a refusal in the log", NOTICED, || refusals() > 0)?;
    let log = site.forwarder.log();
    let finding = log
        .lines()
        .find(|line| line.contains("unknown-pool"))
        .unwrap();
    assert!(
        finding.contains("extra.toml") && finding.contains("did you mean `web`"),
        "{finding}"
    );
    fs::write(directory.join("not-a-drop-in"), "x").unwrap();
    std::thread::sleep(NOT_NOTICED);
    assert_eq!(refusals(), 1, "the same files are refused once");
    assert_eq!(in_use(&site)?, before);
    // What the daemon writes itself is no change: other edits go on.
    fs::write(&extra, route(&["third.example.org"], "web")).unwrap();
    wait_until("a word in the log", NOTICED, || {
        site.forwarder.log().contains("say what is in use again")
    })?;
    verb(
        &site.forwarder,
        &["route", "add", "edit.example.org", "--pool", "web"],
    )?;
    verb(
        &site.forwarder,
        &[
            "route",
            "add",
            "kept.example.org",
            "--pool",
            "web",
            "--persist",
        ],
    )?;
    std::thread::sleep(NOT_NOTICED);
    assert!(serves(&site, "edit.example.org") && serves(&site, "kept.example.org"));
    // And the last one goes with its file.
    fs::remove_file(&extra).unwrap();
    wait_until("the end of a name", NOTICED, || {
        !serves(&site, "third.example.org")
    })?;
    assert!(serves(&site, "kept.example.org"));
    // Switched off by itself.
    let off = fs::read_to_string(&main)
        .unwrap()
        .replace("watch = true\n", "");
    fs::write(&main, &off).unwrap();
    wait_until("the end of the watch", NOTICED, || {
        site.forwarder.log().contains("true → false")
    })?;
    fs::write(
        &main,
        format!("{off}\n{}", route(&["late.example.org"], "web")),
    )
    .unwrap();
    std::thread::sleep(NOT_NOTICED);
    assert!(!serves(&site, "late.example.org"));
    Ok(())
}
