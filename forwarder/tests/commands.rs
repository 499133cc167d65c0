//! The command line without a daemon and with wrong arguments: exit codes, and what a newcomer is told.

use std::process::{Command, Output};

fn forwarder(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forwarder"));
    for variable in ["FORWARDER_CONFIG", "FORWARDER_BPFFS", "FORWARDER_RUN_DIR"] {
        command.env_remove(variable);
    }
    command
        .arg("--run-dir")
        .arg(directory.path())
        .arg("--config")
        .arg(directory.path().join("forwarder.toml"));
    command
        .args(arguments)
        .output()
        .expect("the forwarder starts")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every verb that talks to the daemon.
const VERBS: [&[&str]; 17] = [
    &["reload"],
    &["route", "ls"],
    &["route", "add", "www.example.org", "--pool", "k3s"],
    &["route", "rm", "www.example.org"],
    &["node", "ls"],
    &["node", "drain", "thinkpad"],
    &["node", "ready", "thinkpad"],
    &["node", "maint", "thinkpad"],
    &["node", "weight", "thinkpad", "3"],
    &["pool", "ls"],
    &["listener", "ls"],
    &["flow", "ls"],
    &["flow", "kill", "--all"],
    &["explain", "www.example.org", "--from", "198.51.100.4"],
    &["watch"],
    &["watch", "--refused"],
    &["confirm"],
];

#[test]
fn without_a_daemon_it_is_said_how_to_start_one() {
    for verb in VERBS {
        let output = forwarder(verb);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {said}");
        assert!(
            said.starts_with("forwarder: no daemon answers at "),
            "{verb:?}: {said}"
        );
        assert!(
            said.contains("`forwarder run` starts one"),
            "{verb:?}: {said}"
        );
        assert_eq!(output.stdout, b"", "{verb:?}");
    }
}

#[test]
fn programs_are_told_the_same() {
    for verb in VERBS.iter().filter(|verb| verb[0] != "confirm") {
        let output = forwarder(&[verb, &["--json"][..]].concat());
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{verb:?}: {error}"));
        let message = json["error"]["message"].as_str().unwrap();
        assert!(message.contains("no daemon"), "{verb:?}: {message}");
        assert!(
            json["error"]["fix"]
                .as_str()
                .unwrap()
                .contains("forwarder run")
        );
    }
    let output = forwarder(&["check", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = json["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("forwarder.toml") && output.status.code() == Some(1),
        "{message}"
    );
}

#[test]
fn a_wrong_command_line_is_shown_with_the_right_one() {
    let cases: [(&[&str], &str); 19] = [
        (&["rout", "ls"], "'route'"),
        (&["nodes", "ls"], "'node'"),
        (&["route"], "Usage: forwarder route"),
        (&["route", "frob"], "Usage: forwarder route"),
        (&["route", "add"], "<NAME>..."),
        (&["route", "add", "--pool", "k3s"], "<NAME>"),
        (&["route", "rm"], "<NAME>"),
        (&["node", "drain"], "<NODE>"),
        (&["node", "weight", "thinkpad"], "<WEIGHT>"),
        (&["node", "weight", "thinkpad", "1001"], "0..=1000"),
        (&["node", "weight", "thinkpad", "much"], "invalid digit"),
        (&["explain"], "<NAME>"),
        (
            &["explain", "www.example.org", "--from", "me"],
            "invalid IP address",
        ),
        (
            &[
                "explain",
                "www.example.org",
                "--from",
                "198.51.100.4",
                "--port",
                "70000",
            ],
            "0..=65535",
        ),
        (&["flow", "ls", "--client", "me"], "198.51.100.4"),
        (&["flow", "kill", "--client", "me"], "198.51.100.4"),
        (&["reload", "now"], "Usage: forwarder reload"),
        (&["check", "--ofline"], "'--offline'"),
        (&["run", "--confirm", "soon"], "--confirm"),
    ];
    for (arguments, expected) in cases {
        let output = forwarder(arguments);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
