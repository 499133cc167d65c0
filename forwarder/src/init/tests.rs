//! Drafts completed, asked about, refused and written.

use std::io::BufReader;

use super::*;

fn draft() -> Draft {
    Draft {
        nodes: vec![String::from("10.0.0.2"), String::from("[fd00::2]:8443")],
        names: vec![
            String::from("WWW.example.org"),
            String::from("*.apps.example.org"),
        ],
        ..Draft::default()
    }
}

fn detected() -> Detected {
    Detected {
        public: vec![String::from("eth0")],
        tunnels: vec![String::from("wg0")],
        links: ["eth0", "eth1", "wg0"].map(String::from).to_vec(),
        peers: vec!["10.0.0.6".parse().unwrap()],
    }
}

#[test]
fn a_public_interface_that_is_not_there_is_refused() {
    let wrong = Draft {
        public: vec![String::from("ens3")],
        ..draft()
    };
    let said = complete(&wrong, &detected(), None).unwrap_err().to_string();
    assert!(
        said.contains("ens3") && said.contains("eth0, eth1, wg0"),
        "{said}"
    );
    let later = Draft {
        tunnels: vec![String::from("wg7")],
        ..draft()
    };
    assert!(
        complete(&later, &detected(), None).is_ok(),
        "a tunnel may come later"
    );
}

#[test]
fn flags_and_the_machine_make_a_valid_file() {
    let answers = complete(&draft(), &detected(), None).unwrap();
    assert_eq!(answers.nodes[0].to_string(), "10.0.0.2:443");
    assert_eq!(answers.names[0], "www.example.org");
    for (word, own) in ClientAddress::WORDS {
        let answers = Answers {
            client_address: *own,
            ..answers.clone()
        };
        let (text, outcome) = compose(&answers, Path::new("x.toml")).unwrap();
        assert_eq!(
            outcome.report.warnings(),
            0,
            "{}",
            outcome.report.render(false)
        );
        let config = outcome.config.unwrap();
        assert_eq!(config.pools[0].client_address, *own, "{word}");
        assert_eq!(config.pools[0].nodes.len(), 2);
        assert_eq!(config.entrance.public[0].get_ref(), "eth0");
        assert!(text.contains("port = 443"));
    }
}

#[test]
fn what_is_missing_is_named_by_its_flag() {
    let missing = |draft: Draft, detected: Detected| {
        complete(&draft, &detected, None).unwrap_err().to_string()
    };
    let told = missing(
        Draft {
            nodes: Vec::new(),
            ..draft()
        },
        detected(),
    );
    assert!(told.starts_with("--node is missing"), "{told}");
    assert!(told.contains("10.0.0.6:443"), "peers are offered: {told}");
    let told = missing(
        Draft {
            names: Vec::new(),
            ..draft()
        },
        detected(),
    );
    assert!(told.starts_with("--name is missing"), "{told}");
    let told = missing(draft(), Detected::default());
    assert!(told.starts_with("--public is missing"), "{told}");
    let no_tunnel = Detected {
        tunnels: Vec::new(),
        ..detected()
    };
    let told = missing(draft(), no_tunnel);
    assert!(told.starts_with("--tunnel is missing"), "{told}");
}

#[test]
fn what_cannot_be_is_refused_by_its_flag() {
    let refused = |draft: Draft| complete(&draft, &detected(), None).unwrap_err().to_string();
    let told = refused(Draft {
        nodes: vec![String::from("node.local")],
        ..draft()
    });
    assert!(told.starts_with("--node node.local: an address"), "{told}");
    let told = refused(Draft {
        names: vec![String::from("a..b")],
        ..draft()
    });
    assert!(told.starts_with("--name a..b:"), "{told}");
    let told = refused(Draft {
        tunnels: vec![String::from("a\"b")],
        ..draft()
    });
    assert!(told.starts_with("--tunnel a\"b:"), "{told}");
    let transparent = Draft {
        tunnels: vec![String::from("tailscale0")],
        client_address: Some(String::from("transparent")),
        ..draft()
    };
    let told = refused(transparent);
    assert!(told.contains("Tailscale drops"), "{told}");
}

#[test]
fn a_person_is_asked_and_asked_again() {
    let typed = "\n\n8443\n10.0.0.2, nonsense\n10.0.0.2 10.0.0.3:444\nproxy\nmasquerade\n\nwww.example.org\n";
    let (mut input, mut output) = (BufReader::new(typed.as_bytes()), Vec::new());
    let mut terminal = Terminal::new(&mut input, &mut output);
    let answers = complete(&Draft::default(), &detected(), Some(&mut terminal)).unwrap();
    let shown = String::from_utf8(output).unwrap();
    assert_eq!(
        (answers.public, answers.tunnels),
        (vec!["eth0".into()], vec!["wg0".into()])
    );
    assert_eq!(answers.port, 8_443);
    assert_eq!(answers.nodes.len(), 2, "{shown}");
    assert_eq!(answers.client_address, ClientAddress::Masquerade);
    assert_eq!(answers.names, ["www.example.org"]);
    assert!(
        shown.contains("[10.0.0.6:443]"),
        "the peer is offered: {shown}"
    );
    assert!(shown.contains("nonsense: an address is needed"), "{shown}");
    assert!(shown.contains("at least one is needed"), "{shown}");
}

#[test]
fn an_end_of_input_is_no_answer() {
    let (mut input, mut output) = (BufReader::new("eth0\n".as_bytes()), Vec::new());
    let mut terminal = Terminal::new(&mut input, &mut output);
    let error = complete(&Draft::default(), &detected(), Some(&mut terminal)).unwrap_err();
    assert!(matches!(error, InitError::Unanswered(None)), "{error}");
}

#[test]
fn a_file_that_is_there_stays_unless_forced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/forwarder.toml");
    write(&path, "first", false).unwrap();
    let error = write(&path, "second", false).unwrap_err().to_string();
    assert!(error.contains("--force"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
    write(&path, "third", true).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "third");
    let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "nothing is left over");
}
