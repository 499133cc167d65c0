//! The command line as a part of others: pipes that close, many arguments, standard input, who did what.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::{output, run};
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::process::wait_until;
use forwarder_tests::site::Site;

const SOON: Duration = Duration::from_secs(10);

fn start() -> Site {
    Site::build(Lab::builder().tunnel(TunnelKind::Ethernet, 2))
}

/// A pipe that nobody reads from any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_closed_pipe_ends_a_verb_without_a_word() -> Result<()> {
    let site = start();
    let verbs: [&[&str]; 16] = [
        &["status"],
        &["status", "--json"],
        &["check"],
        &["check", "--json"],
        &["doctor", "--offline", "--no-trial"],
        &["node", "ls"],
        &["pool", "ls"],
        &["route", "ls", "--json"],
        &["listener", "ls"],
        &["flow", "ls"],
        &["explain", "www.example.org", "--from", "198.51.100.4"],
        &["reload"],
        &["confirm"],
        &["completions", "bash"],
        &["top", "--once"],
        // A failure that is told as JSON.
        &["node", "drain", "nobody", "--json"],
    ];
    for verb in verbs {
        let mut command = site.forwarder.command()?;
        command.args(verb).stdout(closed_pipe());
        let done = output_as_it_is(&mut command);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let failure = verb.contains(&"nobody");
        assert!(said.is_empty() || failure, "{verb:?}: {said}");
        assert!(!said.contains("panicked"), "{verb:?}: {said}");
        assert_eq!(
            done.status.signal(),
            Some(libc::SIGPIPE),
            "{verb:?}: {done:?}"
        );
    }
    // Standard error too, where that is where the words go.
    let mut command = site.forwarder.command()?;
    command
        .args(["node", "drain", "nobody"])
        .stderr(closed_pipe());
    let done = output_as_it_is(&mut command);
    assert!(
        done.status.code() == Some(1) || done.status.signal() == Some(libc::SIGPIPE),
        "{done:?}"
    );
    Ok(())
}

/// Runs with the streams that are set, others piped.
fn output_as_it_is(command: &mut Command) -> std::process::Output {
    command.stdin(Stdio::null());
    command.output().expect("it runs")
}

#[test]
fn a_daemon_whose_standard_error_is_closed_goes_on() -> Result<()> {
    let mut site = start();
    site.forwarder.stop();
    let mut command = site.forwarder.command()?;
    command
        .args(["--log-format", "human", "run"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(closed_pipe());
    let mut daemon = command.spawn().expect("a daemon");
    let answers = || {
        let mut asks = site.forwarder.command().expect("a command");
        output(asks.args(["node", "ls"])).is_ok_and(|done| done.status.success())
    };
    let begun = wait_until("an answer", Duration::from_secs(60), answers);
    // More words for nobody.
    let said = site
        .forwarder
        .command()
        .and_then(|mut asks| run(asks.arg("reload")));
    std::thread::sleep(Duration::from_millis(500));
    let goes_on = daemon.try_wait().ok().flatten();
    let _ = daemon.kill();
    let _ = daemon.wait();
    begun?;
    said?;
    assert_eq!(goes_on, None, "it ended");
    Ok(())
}

#[test]
fn the_configuration_comes_from_standard_input_where_it_is_only_read() -> Result<()> {
    let site = start();
    let text = std::fs::read_to_string(site.forwarder.config()).expect("a configuration");
    let program = forwarder_tests::forwarder::program()?;
    let ask = |arguments: &[&str], text: &str| {
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        // It may refuse before it reads.
        let _ = child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(text.as_bytes());
        child.wait_with_output().expect("it ends")
    };
    let sound = ask(&["--config", "-", "check", "--offline"], &text);
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    let broken = ask(
        &["check", "--offline", "--config", "-"],
        &format!("{text}\nx = 1\n"),
    );
    let said = String::from_utf8_lossy(&broken.stdout).into_owned();
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    assert!(said.contains("<stdin>:"), "{said}");
    for verb in [
        &["run"][..],
        &["status"],
        &["reload"],
        &["node", "ls"],
        &["unload"],
    ] {
        let refused = ask(&[&["--config", "-"], verb].concat(), &text);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{verb:?}: {said}");
        assert!(said.contains("only `forwarder check`"), "{verb:?}: {said}");
    }
    Ok(())
}

#[test]
fn names_by_the_thousand_go_in_one_request() -> Result<()> {
    let site = start();
    let names: Vec<String> = (0..6_000)
        .map(|at| format!("host-{at}.example.org"))
        .collect();
    let mut add = site.forwarder.command()?;
    add.args(["route", "add", "--pool", "web"]).args(&names);
    run(&mut add)?;
    assert_eq!(
        site.report(Family::V4, "host-5999.example.org")?.server,
        "node0"
    );
    let mut rm = site.forwarder.command()?;
    rm.args(["route", "rm"]).args(&names);
    run(&mut rm)?;
    let gone = site.curl(Family::V4, "host-5999.example.org", "/")?.run()?;
    assert_eq!(gone.status, 0, "no longer listed");
    // The log names some of them, and not all.
    let log = site.forwarder.log();
    let line = log.lines().find(|line| line.contains("by order: route rm"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains("host-0.example.org") && line.contains("5990 more names"),
        "{line}"
    );
    assert!(line.len() < 2_000, "{}", line.len());
    Ok(())
}

#[test]
fn the_log_says_who_changed_what() -> Result<()> {
    let site = start();
    let node = site.lab.nodes[0].socket(Family::V4, 443).to_string();
    for (words, outcome) in [
        (&["node", "drain", &node][..], "done by order"),
        (&["node", "drain", "nobody"], "refused by order"),
        (&["flow", "kill", "--all"], "done by order"),
        (&["reload"], "done by order"),
        (&["confirm"], "done by order"),
    ] {
        let mut command = site.forwarder.command()?;
        command.args(words);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let pid = child.id();
        let _ = child.wait_with_output();
        let wanted = format!("{outcome}: {}", words.join(" "));
        let mut line = None;
        wait_until("a line in the log", SOON, || {
            let log = site.forwarder.log();
            line = log
                .lines()
                .find(|own| own.contains(&wanted))
                .map(str::to_owned);
            line.is_some()
        })?;
        let line = line.unwrap_or_default();
        for part in ["\"uid\":0", &format!("\"pid\":{pid}"), "\"level\":\"INFO\""] {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }
    Ok(())
}

#[test]
fn whoever_watches_learns_that_the_daemon_has_ended() -> Result<()> {
    let mut site = start();
    for kill in [true, false] {
        let mut command = site.forwarder.command()?;
        command
            .arg("watch")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut watcher = command.spawn().expect("it runs");
        let mut lines = BufReader::new(watcher.stdout.take().expect("a pipe"));
        let mut line = String::new();
        let begun = wait_until("an event", SOON, || {
            let _ = site
                .curl(Family::V4, "private.example.org", "/")
                .and_then(|own| own.run());
            // A thread would do as well; the first event is there by then.
            std::thread::sleep(Duration::from_millis(300));
            lines.fill_buf().is_ok_and(|read| !read.is_empty())
        });
        if begun.is_ok() {
            lines.read_line(&mut line).expect("a line");
        }
        let killed = if kill {
            site.forwarder.kill()
        } else {
            site.forwarder.stop();
            Ok(())
        };
        let mut code = None;
        let ended = wait_until("its end", SOON, || {
            code = watcher.try_wait().ok().flatten();
            code.is_some()
        });
        let _ = watcher.kill();
        let done = watcher.wait_with_output().expect("it ends");
        begun?;
        killed?;
        ended?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "killed {kill}: {said}");
        assert!(said.contains("the daemon has ended"), "{said}");
        site.forwarder.run()?;
    }
    Ok(())
}

/// A user that no machine has, and the group that may use the socket.
const USER: u32 = 64_991;
const GROUP: u32 = 64_990;

#[test]
fn members_of_the_group_see_the_status_and_others_learn_why_not() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mut site = start();
    site.forwarder.stop();
    site.forwarder.with_group("forwarder", GROUP)?;
    site.forwarder.run()?;
    let folder = site.lab.folder();
    let program = folder.join("forwarder-copy");
    std::fs::copy(forwarder_tests::forwarder::program()?, &program).expect("a copy");
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    open(folder, 0o755);
    open(&program, 0o755);
    open(site.forwarder.bpffs(), 0o700);
    let bpffs = site.forwarder.bpffs().to_owned();
    let ask = |groups: &'static [u32], words: &[&str]| {
        let mut command = Command::new(&program);
        command
            .arg("--bpffs")
            .arg(&bpffs)
            .arg("--run-dir")
            .arg(folder.join("run"))
            .args(words);
        let become_user = move || {
            // SAFETY: the list lives on; the others take numbers. All are system calls.
            let failed = unsafe {
                libc::setgroups(groups.len(), groups.as_ptr()) != 0
                    || libc::setgid(groups[0]) != 0
                    || libc::setuid(USER) != 0
            };
            if failed {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only.
        unsafe { command.pre_exec(become_user) };
        command.output().expect("it runs")
    };
    for words in [&["status"][..], &["status", "--json"]] {
        let done = ask(&[USER, GROUP], words);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.status.code(), Some(0), "{words:?}: {done:?}");
        assert!(said.contains("www.example.org"), "{said}");
    }
    let denied = |done: std::process::Output, what: &str| {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{what}: {said}");
        assert!(said.contains("permission denied"), "{what}: {said}");
        assert!(said.contains("`forwarder`"), "{what}: {said}");
        assert!(!said.contains("is loaded"), "{what}: {said}");
    };
    denied(ask(&[USER], &["status"]), "somebody else");
    site.forwarder.stop();
    denied(ask(&[USER, GROUP], &["status"]), "without a daemon");
    Ok(())
}
