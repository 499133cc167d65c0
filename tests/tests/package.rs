//! The Debian package on a machine of its own: installed, at work under systemd, upgraded, removed, purged.
//!
//! `cargo xtask test --only package` makes two revisions of the package and the root, and runs this.

use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::client::Curl;
use forwarder_tests::command::output;
use forwarder_tests::forwarder::entrance_section;
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::machine::{Machine, from_stage};
use forwarder_tests::raw::{PATIENCE, RawTcp};
use forwarder_tests::server::recorder::{Connection, Recorder};
use forwarder_tests::server::web::{Report, WebOptions, WebServer};
use forwarder_tests::site::{pool, route};

const CONFIG: &str = "/etc/forwarder/forwarder.toml";
/// How long systemd may take for something; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// The greatest exposure that `systemd-analyze security` may find, in tenths. Two of them are CAP_DAC_READ_SEARCH, by
/// which the daemon reads configuration files that belong to somebody else.
const EXPOSURE: &str = "22";

/// An entrance that is a Debian machine, and a node with a web server and a recorder.
struct Entrance {
    machine: Machine,
    recorder: Recorder,
    _web: WebServer,
    lab: Lab,
}

impl Entrance {
    fn boot() -> Result<Self> {
        let lab = Lab::builder().tunnel(TunnelKind::Ethernet, 1).build()?;
        let node = &lab.nodes[0].namespace;
        Ok(Self {
            machine: Machine::boot(&lab, &lab.entrance, "vps")?,
            recorder: Recorder::start(node, 7000)?,
            _web: WebServer::start(node, &lab.pki, WebOptions::new("node0", 443))?,
            lab,
        })
    }

    /// With the package of a variable installed, the lab's configuration, and the service started.
    fn at_work() -> Result<Self> {
        let entrance = Self::boot()?;
        entrance.install("FORWARDER_DEB")?;
        entrance.machine.write(CONFIG, &entrance.configuration())?;
        entrance
            .machine
            .shell("systemctl enable --now forwarder")
            .inspect_err(|_| eprintln!("{}", entrance.machine.journal("forwarder")))?;
        Ok(entrance)
    }

    fn install(&self, variable: &str) -> Result<String> {
        let package = format!("/root/{}.deb", variable.to_lowercase());
        self.machine.copy_in(&from_stage(variable)?, &package)?;
        self.machine.run(&["apt-get", "install", "--yes", &package])
    }

    fn configuration(&self) -> String {
        let node = &self.lab.nodes[0];
        let web = pool("web", "transparent", &[(node, 443)]);
        let record = pool("record", "transparent", &[(node, 7000)]);
        format!(
            "# An edit of mine.\n{}\n[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\n{web}{}{record}{}",
            entrance_section(&self.lab),
            route(&["www.example.org"], "web"),
            route(&["record.example.org"], "record"),
        )
    }

    fn curl(&self, name: &str) -> Result<Curl> {
        let client = &self.lab.clients[0].namespace;
        let address = (self.lab.public(Family::V4), 443).into();
        Curl::new(client, &self.lab.pki, name, address, "/")
    }

    fn is_served(&self, name: &str) -> Result<bool> {
        Ok(self.curl(name)?.run()?.status == 200)
    }

    /// An open connection to the recorder, and its end of it.
    fn open_flow(&self) -> Result<(RawTcp, Connection)> {
        let address = (self.lab.public(Family::V4), 443).into();
        let mut raw = RawTcp::new(&self.lab.clients[0], address)?;
        raw.connect()?;
        let hello = Hello::small("record.example.org").record();
        raw.send_data(&hello)?;
        let node = self.recorded(&raw, hello.len())?;
        let next = raw.next;
        raw.expect("the node's acknowledgement", |it| it.ack == next)?;
        Ok((raw, node))
    }

    fn recorded(&self, raw: &RawTcp, length: usize) -> Result<Connection> {
        let what = format!("{length} bytes from {}", raw.local);
        self.recorder.wait_for(&what, PATIENCE, |it| {
            it.peer == raw.local && it.bytes.len() >= length
        })
    }

    fn main_pid(&self) -> Result<String> {
        self.machine
            .run(&["systemctl", "show", "--property=MainPID", "forwarder"])
    }
}

#[test]
fn installed_it_is_whole_and_waits_for_its_configuration() -> Result<()> {
    let entrance = Entrance::boot()?;
    let machine = &entrance.machine;
    entrance.install("FORWARDER_DEB")?;

    assert!(
        machine
            .run(&["forwarder", "--version"])?
            .starts_with("forwarder ")
    );
    // There is no configuration before somebody has made one; the example is right, and stands among the documents.
    let said = output(&mut machine.command(&["forwarder", "check", "--offline"]))?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("forwarder init"), "{said}");
    let example = "/usr/share/doc/forwarder/examples/forwarder.toml";
    machine.run(&["forwarder", "--config", example, "check", "--offline"])?;
    assert_eq!(
        machine.run(&["dpkg", "--verify", "forwarder"])?,
        "",
        "every file is as packed"
    );
    assert!(
        machine
            .run(&["getent", "group", "forwarder"])?
            .contains("forwarder:")
    );
    for state in ["is-enabled", "is-active"] {
        assert!(
            !machine.succeeds(&["systemctl", state, "forwarder"]),
            "{state}"
        );
    }
    for path in [
        "/usr/share/bash-completion/completions/forwarder",
        "/usr/share/zsh/vendor-completions/_forwarder",
        "/usr/share/fish/vendor_completions.d/forwarder.fish",
        "/usr/share/man/man1/forwarder.1.gz",
        "/usr/share/man/man5/forwarder.toml.5.gz",
        "/usr/share/doc/forwarder/copyright",
        "/usr/share/doc/forwarder/changelog.Debian.gz",
        "/usr/share/doc/forwarder/config.md",
        "/usr/share/forwarder/dashboards/forwarder-overview.json",
        "/usr/share/forwarder/dashboards/provisioning/datasource.yml",
        "/usr/share/forwarder/prometheus/rules.yml",
    ] {
        assert!(machine.path(path).is_file(), "{path} is absent");
    }
    let conffiles = machine.run(&[
        "dpkg-query",
        "--show",
        "--showformat=${Conffiles}",
        "forwarder",
    ])?;
    assert!(!conffiles.contains(CONFIG), "{conffiles}");

    let unit = "/usr/lib/systemd/system/forwarder.service";
    assert_eq!(
        machine.shell(&format!("systemd-analyze verify --man=no {unit}"))?,
        ""
    );
    let threshold = format!("--threshold={EXPOSURE}");
    let analysis = output(&mut machine.command(&[
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        &threshold,
        unit,
    ]))?;
    let said = String::from_utf8_lossy(&analysis.stdout);
    let overall = said
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    println!("{}", overall.unwrap_or("no overall exposure level"));
    assert!(analysis.status.success() && overall.is_some(), "{said}");
    Ok(())
}

#[test]
fn it_works_inside_its_sandbox() -> Result<()> {
    let entrance = Entrance::at_work()?;
    let machine = &entrance.machine;
    let client = entrance.lab.clients[0].address(Family::V4);
    let report: Report = entrance.curl("www.example.org")?.json()?;
    assert_eq!(
        (report.server.as_str(), report.client().ip()),
        ("node0", client)
    );
    let status = machine.run(&["cat", &format!("/proc/{}/status", pid(&entrance)?)])?;
    let value = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    // CAP_DAC_READ_SEARCH is 2, CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39; 2 is a filter of
    // system calls.
    assert_eq!(value("CapEff:"), "000000c000003004", "{status}");
    assert_eq!(
        (value("NoNewPrivs:").as_str(), value("Seccomp:").as_str()),
        ("1", "2")
    );

    // The group gets to the socket, others do not.
    machine.shell(
        "useradd --groups forwarder member\nuseradd stranger\n\
         su member -c 'forwarder route ls' | grep -q www.example.org\n\
         if su stranger -c 'forwarder route ls'; then exit 1; fi",
    )?;

    // Reloading waits for the outcome, and a broken file changes nothing.
    let edited = entrance
        .configuration()
        .replace("www.example.org", "new.example.org");
    machine.write(CONFIG, &edited)?;
    machine.run(&["systemctl", "reload", "forwarder"])?;
    assert!(entrance.is_served("new.example.org")? && !entrance.is_served("www.example.org")?);
    machine.write(CONFIG, "[entrance]\npublic = 7\n")?;
    assert!(!machine.succeeds(&["systemctl", "reload", "forwarder"]));
    assert!(entrance.is_served("new.example.org")?);

    machine.write(CONFIG, &edited)?;
    machine.run(&[
        "forwarder",
        "route",
        "add",
        "more.example.org",
        "--pool",
        "web",
        "--persist",
    ])?;
    assert!(entrance.is_served("more.example.org")?);
    let file = machine.read(CONFIG)?;
    assert!(
        file.contains("# An edit of mine.") && file.contains("more.example.org"),
        "{file}"
    );

    // A drop-in that only its owner may read.
    machine.write(
        "/etc/forwarder/conf.d/theirs.toml",
        "[[route]]\nnames = [\"theirs.example.org\"]\npool = \"web\"\n",
    )?;
    machine.shell("chown daemon: /etc/forwarder/conf.d/theirs.toml && chmod 0600 /etc/forwarder/conf.d/theirs.toml")?;
    machine.run(&["systemctl", "reload", "forwarder"])?;
    assert!(entrance.is_served("theirs.example.org")?);

    // The rest of the file system is not its own to write.
    let denied = machine.journal("forwarder");
    assert!(!denied.contains("Operation not permitted"), "{denied}");
    Ok(())
}

#[test]
fn systemd_starts_a_hung_daemon_again() -> Result<()> {
    let entrance = Entrance::at_work()?;
    let machine = &entrance.machine;
    machine.shell(
        "mkdir -p /etc/systemd/system/forwarder.service.d\n\
         printf '[Service]\\nWatchdogSec=2s\\nRestartSec=100ms\\n' \
         >/etc/systemd/system/forwarder.service.d/quick.conf\n\
         systemctl daemon-reload && systemctl restart forwarder",
    )?;
    let before = pid(&entrance)?;
    let (mut raw, node) = entrance.open_flow()?;
    machine.run(&["kill", "-STOP", &before])?;
    machine.wait_until("another daemon", LIMIT, || {
        machine.succeeds(&["systemctl", "is-active", "--quiet", "forwarder"])
            && pid(&entrance).is_ok_and(|now| now != before && now != "0")
    })?;
    raw.send_data(b"alive")?;
    entrance.recorded(&raw, node.bytes.len() + 5)?;
    assert!(
        machine.journal("forwarder").contains("atchdog"),
        "{}",
        machine.journal("forwarder")
    );
    Ok(())
}

#[test]
fn an_upgrade_keeps_edits_and_open_connections() -> Result<()> {
    let entrance = Entrance::at_work()?;
    let machine = &entrance.machine;
    let (mut raw, node) = entrance.open_flow()?;
    let before = entrance.main_pid()?;
    let version = || {
        machine.run(&[
            "dpkg-query",
            "--show",
            "--showformat=${Version}",
            "forwarder",
        ])
    };
    let old = version()?;

    entrance.install("FORWARDER_DEB_NEWER")?;
    assert_ne!(version()?, old);
    assert_eq!(machine.read(CONFIG)?, entrance.configuration());
    assert!(machine.succeeds(&["systemctl", "is-active", "forwarder"]));
    assert!(machine.succeeds(&["systemctl", "is-enabled", "forwarder"]));
    assert_ne!(entrance.main_pid()?, before, "the new daemon runs");

    let sent = node.bytes.len();
    raw.send_data(b"still here")?;
    assert!(
        entrance
            .recorded(&raw, sent + 10)?
            .bytes
            .ends_with(b"still here")
    );
    node.send(b"so am I")?;
    assert_eq!(raw.read(7, PATIENCE)?, b"so am I");
    assert!(entrance.is_served("www.example.org")?);
    Ok(())
}

#[test]
fn removed_it_keeps_the_configuration_and_purged_it_leaves_nothing() -> Result<()> {
    let entrance = Entrance::at_work()?;
    let machine = &entrance.machine;
    let pins = "/sys/fs/bpf/forwarder";
    let (_raw, _node) = entrance.open_flow()?;
    assert!(machine.path(pins).exists());

    let said = machine.shell("apt-get remove --yes forwarder")?;
    assert!(
        said.contains("1 open flow ends"),
        "it says what ends:\n{said}"
    );
    assert!(
        !machine.path(pins).exists(),
        "nothing stays in the kernel:\n{said}"
    );
    assert!(!entrance.is_served("www.example.org")?);
    assert_eq!(machine.read(CONFIG)?, entrance.configuration());

    // What was enabled before is enabled again, but only started by hand or at boot.
    entrance.install("FORWARDER_DEB")?;
    assert_eq!(machine.read(CONFIG)?, entrance.configuration());
    machine.shell("systemctl start forwarder")?;
    assert!(entrance.is_served("www.example.org")?);

    machine.write("/etc/forwarder/forwarder.toml.mine", "")?;
    machine.shell("apt-get purge --yes forwarder")?;
    assert!(!entrance.is_served("www.example.org")?);
    assert!(!machine.succeeds(&["getent", "group", "forwarder"]));
    // What apt and the journal remember is theirs.
    let left = machine.shell(
        "find / -xdev -iname '*forwarder*' -not -path '/proc/*' -not -path '/root/*' \
         -not -path '/var/log/*' -not -path '/var/cache/*' -not -path '/sys/*'\n\
         find /run /sys/fs/bpf -iname '*forwarder*'",
    )?;
    assert_eq!(left, "");

    entrance.install("FORWARDER_DEB")?;
    assert!(!machine.path(CONFIG).exists());
    assert!(!machine.succeeds(&["systemctl", "is-enabled", "forwarder"]));
    Ok(())
}

fn pid(entrance: &Entrance) -> Result<String> {
    let property = entrance.main_pid()?;
    Ok(property.trim().trim_start_matches("MainPID=").to_owned())
}
