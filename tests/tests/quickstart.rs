//! The quick starts followed word for word: two fresh Debian machines, the package, and a visitor with curl.
//!
//! Like `package.rs`, this needs what `cargo xtask test --only package` makes.

use forwarder_tests::command::{cache, output};
use forwarder_tests::document::{Block, blocks};
use forwarder_tests::error::Context;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::machine::{Machine, from_stage};
use forwarder_tests::server::web::{Report, WebOptions, WebServer};
use forwarder_tests::{Error, Result};

const WIREGUARD: &str = "quickstart-wireguard.md";
const TRANSPARENT: &str = "node-transparent.md";
/// Documents that are followed here.
const FOLLOWED: &[&str] = &[WIREGUARD, TRANSPARENT];
/// Places of blocks that cannot be run here, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    (
        WIREGUARD,
        "elsewhere",
        "the package is built and copied by the stage that runs this",
    ),
    (
        "quickstart-tailscale.md",
        "tailnet",
        "needs an account with Tailscale, and the internet",
    ),
    ("k3s.md", "cluster", "needs a cluster, and the internet"),
];

/// Where a document's commands are run.
struct Site {
    vps: Machine,
    home: Machine,
    _web: WebServer,
    lab: Lab,
    /// What a reader fills in.
    values: Vec<(&'static str, String)>,
}

impl Site {
    fn start() -> Result<Self> {
        // The tunnel is what the document sets up: the lab brings none, only the internet.
        let lab = Lab::builder()
            .clients(2)
            .tunnel(TunnelKind::Ethernet, 0)
            .build()?;
        let at_home = &lab.clients[1].namespace;
        let vps = Machine::boot(&lab, &lab.entrance, "vps")?;
        let home = Machine::boot(&lab, at_home, "home")?;
        for machine in [&vps, &home] {
            // What a person answers when apt asks whether to go on.
            machine.write(
                "/etc/apt/apt.conf.d/90yes",
                "APT::Get::Assume-Yes \"true\";\n",
            )?;
        }
        // The strictest that distributions set.
        home.run(&[
            "sysctl",
            "-w",
            "net.ipv4.conf.all.rp_filter=1",
            "net.ipv4.conf.default.rp_filter=1",
        ])?;
        let package = from_stage("FORWARDER_DEB")?;
        let name = package
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        vps.copy_in(&package, &format!("/root/{name}"))?;
        Ok(Self {
            _web: WebServer::start(at_home, &lab.pki, WebOptions::new("home", 443))?,
            values: vec![("the VPS's address", lab.public(Family::V4).to_string())],
            vps,
            home,
            lab,
        })
    }

    /// Runs the blocks of a document in their order and returns what those of the visitor said.
    fn follow(&mut self, file: &str) -> Result<Vec<String>> {
        let mut answers = Vec::new();
        for block in blocks(file)? {
            match block.place() {
                None => {}
                Some("vps") => drop(self.run_on(&self.vps, &block)?),
                Some("home") => drop(self.run_on(&self.home, &block)?),
                Some("both") => {
                    let keys = [
                        self.run_on(&self.vps, &block)?,
                        self.run_on(&self.home, &block)?,
                    ]
                    .map(|said| said.lines().last().unwrap_or_default().to_owned());
                    let [vps, home] = keys;
                    self.values.push(("the VPS's public key", vps));
                    self.values.push(("the home machine's public key", home));
                }
                Some("client") => answers.push(self.visit(&block)?),
                Some(place) => assert!(is_not_run(file, place), "{file}: {place}"),
            }
        }
        Ok(answers)
    }

    fn run_on(&self, machine: &Machine, block: &Block) -> Result<String> {
        machine.shell(&self.filled(block)?).inspect_err(|_| {
            eprintln!("at line {}; {}", block.line, machine.journal("forwarder"));
        })
    }

    /// The visitor's machine is the lab's: its curl knows the name and the authority by its configuration.
    fn visit(&self, block: &Block) -> Result<String> {
        let folder = self.lab.folder();
        let file = folder.join(".curlrc");
        let text = format!(
            "resolve = \"www.example.org:443:{}\"\ncacert = {:?}\nnoproxy = \"*\"\nmax-time = 60\n",
            self.lab.public(Family::V4),
            self.lab.pki.authority,
        );
        std::fs::write(&file, text).context(|| format!("writing {}", file.display()))?;
        let mut path = cache().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = self.lab.clients[0].namespace.command("bash")?;
        command
            .args(["-ec", &format!("exec 2>&1\n{}", self.filled(block)?)])
            .env("CURL_HOME", folder)
            .env("PATH", path);
        let answer = output(&mut command)?;
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert_eq!(
            answer.status.success(),
            !block.fails(),
            "line {}:\n{said}",
            block.line
        );
        Ok(said)
    }

    fn filled(&self, block: &Block) -> Result<String> {
        let values: Vec<(&str, &str)> = self
            .values
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        block.filled(&values)
    }
}

/// What the server at home said about the visit, among what curl said.
fn report(said: &str) -> Result<Report> {
    let from = said.find("{\"server\"").unwrap_or(said.len());
    let mut reports = serde_json::Deserializer::from_str(&said[from..]).into_iter();
    let report = reports.next().and_then(|report| report.ok());
    report.ok_or_else(|| Error::Unintelligible {
        what: "curl's answer".to_owned(),
        text: said.to_owned(),
    })
}

fn is_not_run(file: &str, place: &str) -> bool {
    NOT_RUN
        .iter()
        .any(|(own, there, _)| (*own, *there) == (file, place))
}

#[test]
fn wireguard_and_then_a_transparent_node() -> Result<()> {
    let mut site = Site::start()?;
    let visitor = site.lab.clients[0].address(Family::V4);

    let answers = site.follow(WIREGUARD)?;
    let [listed, unlisted] = answers.as_slice() else {
        panic!("{} visits", answers.len());
    };
    let seen = report(listed)?;
    assert_eq!(
        (seen.server.as_str(), seen.peer.ip().to_string().as_str()),
        ("home", "10.0.0.1")
    );
    assert!(unlisted.contains("unrecognized name"), "{unlisted}");

    site.follow(TRANSPARENT)?;
    let visit = blocks(WIREGUARD)?
        .into_iter()
        .find(|block| block.place() == Some("client"));
    let seen = report(&site.visit(&visit.expect("a visit"))?)?;
    assert_eq!((seen.server.as_str(), seen.peer.ip()), ("home", visitor));
    Ok(())
}

#[test]
fn every_command_is_run_or_listed_here() -> Result<()> {
    let files = ["quickstart-tailscale.md", "k3s.md"];
    for file in FOLLOWED.iter().chain(&files) {
        let all = blocks(file)?;
        assert!(!all.is_empty(), "{file}");
        for block in all {
            let Some(place) = block.place() else { continue };
            let is_run =
                FOLLOWED.contains(file) && ["vps", "home", "both", "client"].contains(&place);
            assert!(
                is_run != is_not_run(file, place),
                "{file}, line {}: {place:?}",
                block.line
            );
        }
    }
    Ok(())
}
