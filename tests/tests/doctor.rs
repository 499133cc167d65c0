//! `forwarder doctor` is given broken entrances: it names exactly what is broken, and what it says mends it.
//!
//! Each case breaks one thing of a healthy entrance, sees the one failure, runs the command or writes the line
//! that was suggested, and sees the entrance healthy again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::{self, output, run};
use forwarder_tests::forwarder::{Forwarder, program};
use forwarder_tests::lab::{Family, Lab, Node, TunnelKind};
use forwarder_tests::pki::Pki;
use forwarder_tests::process::wait_until;
use forwarder_tests::server::nginx::Nginx;
use forwarder_tests::server::recorder::Recorder;
use forwarder_tests::server::web::{WebOptions, WebServer};
use serde_json::Value;

/// A name that the lab's certificate holds.
const NAME: &str = "www.example.org";
/// What is not listed.
const PRIVATE: &str = "grafana.home.example.org";

/// An entrance that is examined.
struct Clinic<'a> {
    lab: &'a Lab,
    /// The configuration file.
    file: PathBuf,
    bpffs: PathBuf,
}

/// What `doctor --json` said.
struct Diagnosis {
    code: Option<i32>,
    report: Value,
}

impl<'a> Clinic<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self {
            lab,
            file: lab.folder().join("doctor.toml"),
            bpffs: lab.bpffs().join("doctor"),
        }
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    /// A pool of one node, and a name.
    fn config(&self, client_address: &str, node: &str) -> String {
        let tunnels = self.lab.tunnel_interfaces();
        format!(
            "[entrance]\npublic = [\"eth0\"]\ntunnels = {tunnels:?}\n\n[[listener]]\nname = \"https\"\n\
             protocol = \"tls\"\nport = 443\n\n[[pool]]\nname = \"home\"\nclient_address = {client_address:?}\n\
             nodes = [{node:?}]\n\n[[route]]\nnames = [{NAME:?}]\npool = \"home\"\n"
        )
    }

    /// The node's address with a port.
    fn at(&self, port: u16) -> String {
        self.node().socket(Family::V4, port).to_string()
    }

    fn write(&self, config: &str) {
        std::fs::write(&self.file, config).unwrap();
    }

    /// A program in the entrance, beside the user-space WireGuard if there is one: `wg` finds its socket only in
    /// its mount namespace.
    fn command(&self, program: &Path) -> Result<Command> {
        let mut command = match self.lab.wireguard_pids().last() {
            None => self.lab.entrance.command(program)?,
            Some(pid) => {
                let mut command = command::command("nsenter")?;
                command
                    .args(["-m", "-n", "-t", &pid.to_string()])
                    .arg(program);
                command
            }
        };
        let own = command::find_own("forwarder")?;
        let path = format!(
            "{}:{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
            command::cache().display(),
            own.parent().unwrap_or(Path::new("/")).display(),
            std::env::var("PATH").unwrap_or_default(),
        );
        command
            .env("PATH", path)
            .env("FORWARDER_CONFIG", &self.file)
            .env("FORWARDER_BPFFS", &self.bpffs)
            .env("FORWARDER_RUN_DIR", self.lab.folder().join("run"))
            .env("SSL_CERT_FILE", &self.lab.pki.authority)
            .env_remove("SSH_CONNECTION");
        Ok(command)
    }

    /// Without the trial of the programs, which takes longer than all the rest.
    fn diagnose(&self, arguments: &[&str]) -> Result<Diagnosis> {
        let mut command = self.command(&program()?)?;
        let doctor = command.args(["doctor", "--json", "--no-trial"]);
        self.ask(doctor.args(arguments))
    }

    fn ask(&self, command: &mut Command) -> Result<Diagnosis> {
        let said = output(command)?;
        let text = String::from_utf8_lossy(&said.stdout);
        let report = serde_json::from_str(&text).unwrap_or_else(|error| {
            let words = String::from_utf8_lossy(&said.stderr);
            panic!("{error}: {text}{words}")
        });
        Ok(Diagnosis {
            code: said.status.code(),
            report,
        })
    }

    /// A shell line in the entrance, as an operator would type it. Not every machine that runs the tests has
    /// `sysctl`.
    fn shell(&self, line: &str) -> Result<String> {
        let sysctl = "command -v sysctl >/dev/null || sysctl() { echo \"${2#*=}\" > \"/proc/sys/$(echo \"${2%%=*}\" | tr . /)\"; }";
        let mut command = self.command(&command::find("sh")?)?;
        run(command.arg("-c").arg(format!("{sysctl}\n{line}")))
    }

    /// Does what a fix says, as far as it can be done by a machine.
    fn apply(&self, fix: &Value) -> Result<()> {
        match fix["where"].as_str() {
            Some("here") => self.shell(fix["command"].as_str().unwrap()).map(drop),
            Some("config") => {
                let file = fix["file"].as_str().unwrap();
                let text = std::fs::read_to_string(file).unwrap();
                let line = fix["line"].as_u64().unwrap() as usize;
                let fixed = fix["text"].as_str().unwrap();
                let lines = text.lines().enumerate();
                let lines: Vec<_> = lines
                    .map(|(index, old)| if index + 1 == line { fixed } else { old })
                    .collect();
                std::fs::write(file, lines.join("\n") + "\n").unwrap();
                Ok(())
            }
            other => panic!("{other:?} is not for a machine: {fix}"),
        }
    }

    /// Sees exactly these failures.
    fn sick(&self, case: &str, codes: &[&str], arguments: &[&str]) -> Result<Diagnosis> {
        let diagnosis = self.diagnose(arguments)?;
        assert_eq!(
            diagnosis.failures(),
            codes,
            "{case}: {:#}",
            diagnosis.report
        );
        assert_eq!(diagnosis.code, Some(1), "{case}");
        for failure in diagnosis.of_verdict("failure") {
            let fixes = failure["fixes"].as_array().unwrap();
            assert!(!fixes.is_empty(), "{case}: {failure:#}");
        }
        Ok(diagnosis)
    }

    /// Sees no failure.
    fn healthy(&self, case: &str, arguments: &[&str]) -> Result<Diagnosis> {
        let diagnosis = self.diagnose(arguments)?;
        assert!(
            diagnosis.failures().is_empty(),
            "{case}: {:#}",
            diagnosis.report
        );
        assert_eq!(diagnosis.code, Some(0), "{case}");
        Ok(diagnosis)
    }

    /// One failure, whose first fix of a sort mends it.
    fn mended(&self, case: &str, code: &str, sort: &str) -> Result<()> {
        self.mended_with(case, code, sort, &[])
    }

    fn mended_with(&self, case: &str, code: &str, sort: &str, arguments: &[&str]) -> Result<()> {
        let diagnosis = self.sick(case, &[code], arguments)?;
        self.apply(&diagnosis.fix(code, sort))?;
        self.healthy(case, arguments).map(drop)
    }
}

impl Diagnosis {
    fn of_verdict(&self, verdict: &str) -> Vec<&Value> {
        let findings = self.report["findings"].as_array().unwrap();
        let matching = findings.iter().filter(|own| own["verdict"] == verdict);
        matching.collect()
    }

    /// Codes of what failed.
    fn failures(&self) -> Vec<&str> {
        let failed = self.of_verdict("failure").into_iter();
        failed.map(|own| own["code"].as_str().unwrap()).collect()
    }

    fn finding(&self, code: &str) -> &Value {
        let findings = self.report["findings"].as_array().unwrap();
        let found = findings.iter().filter(|own| own["code"] == code);
        found
            .max_by_key(|own| match own["verdict"].as_str() {
                Some("failure") => 3,
                Some("warning") => 2,
                _ => 1,
            })
            .unwrap_or_else(|| panic!("no {code}: {:#}", self.report))
    }

    /// The first fix of a sort for a failure.
    fn fix(&self, code: &str, sort: &str) -> Value {
        let finding = self.finding(code);
        let fixes = finding["fixes"].as_array().unwrap();
        let fix = fixes.iter().find(|fix| fix["where"] == sort);
        fix.unwrap_or_else(|| panic!("no fix of sort {sort}: {finding:#}"))
            .clone()
    }
}

fn web(lab: &Lab, options: WebOptions) -> Result<WebServer> {
    WebServer::start(&lab.nodes[0].namespace, &lab.pki, options)
}

#[test]
fn a_broken_machine_is_named_and_mended() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?;
    let _web = web(&lab, WebOptions::new("node0", 443))?;
    let clinic = Clinic::new(&lab);
    let healthy = clinic.config("masquerade", &clinic.at(443));
    let ip = clinic.node().address(Family::V4);
    clinic.write(&healthy);

    let whole = clinic.ask(clinic.command(&program()?)?.args(["doctor", "--json"]))?;
    assert!(whole.failures().is_empty(), "{:#}", whole.report);
    for code in ["programs-load", "programs-attach"] {
        assert_eq!(whole.finding(code)["verdict"], "ok", "{:#}", whole.report);
    }
    let sound = clinic.healthy("as built", &[])?;
    for code in [
        "kernel-version",
        "bpffs",
        "interface",
        "allowed-ips",
        "segments",
        "mtu-black-hole",
        "node-tls",
        "certificate-name",
        "claimed-ports",
    ] {
        assert_eq!(sound.finding(code)["verdict"], "ok", "{:#}", sound.report);
    }
    clinic.shell("ethtool -K eth0 rx-gro-list on")?;
    clinic.mended("segments handed on as lists", "gro-list", "here")?;
    let text = run(clinic
        .command(&program()?)?
        .args(["doctor", "--no-trial", "--offline"]))?;
    assert!(text.contains("\nroutes\n"), "a table for people: {text}");

    std::fs::remove_file(&clinic.file).unwrap();
    let missing = clinic.sick("no file", &["config-missing"], &[])?;
    let init = missing.fix("config-missing", "here");
    let init = init["command"].as_str().unwrap();
    assert!(init.starts_with("forwarder init --output "), "{init}");

    clinic.write(&healthy.replace("port = 443", "port = 444444"));
    let broken = clinic.sick("a broken file", &["configuration"], &[])?;
    let seen = broken.finding("configuration")["seen"].as_str().unwrap();
    assert!(
        seen.starts_with("line 8, ") && seen.contains("444444"),
        "{seen}"
    );

    clinic.write(&healthy.replace("\"wg0\"", "\"wgO\""));
    clinic.mended("a misspelt interface", "missing-interface", "config")?;

    clinic.write(&healthy);
    clinic.shell("ip link set dev wg0 down")?;
    clinic.mended("a tunnel that is down", "interface-down", "here")?;

    clinic.shell(&format!("ip route add {ip}/32 via 203.0.113.1 dev eth0"))?;
    clinic.mended("a node by the public interface", "no-tunnel", "here")?;
    clinic.shell(&format!("ip route del {ip}/32 dev wg0"))?;

    let itself = clinic.node().entrance_address(Family::V4).to_string();
    clinic.write(&healthy.replace(&ip.to_string(), &itself));
    clinic.sick("the entrance as its own node", &["local-node"], &[])?;
    clinic.write(&healthy);

    clinic.shell("ip link set dev wg0 mtu 1000")?;
    clinic.mended("a small MTU", "small-mtu", "here")?;

    // Encrypted packets of full size are lost between entrance and node.
    let nft =
        |line: &str| -> Result<String> { run(lab.nodes[0].namespace.command("nft")?.arg(line)) };
    nft(
        "add table inet hole; add chain inet hole in { type filter hook prerouting priority 0; }; add rule inet hole in iifname up0 udp length > 1350 drop",
    )?;
    clinic.mended("a black hole for large packets", "mtu-black-hole", "here")?;
    nft("delete table inet hole")?;
    clinic.shell("ip link set dev wg0 mtu 1420")?;

    // The other way: the node's certificate fills more than one segment.
    let folder = lab.folder().join("large");
    std::fs::create_dir(&folder).unwrap();
    let names: Vec<String> = (0..120)
        .map(|at| format!("{at}.a-long-name.example.org"))
        .collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push(NAME);
    let large = Pki::create_for(&folder, &names, None)?;
    let _large = WebServer::start(
        &lab.nodes[0].namespace,
        &large,
        WebOptions::new("large", 9_443),
    )?;
    clinic.write(&clinic.config("masquerade", &clinic.at(9_443)));
    let fits = clinic.healthy("a large certificate", &[])?;
    let seen = fits.finding("mtu-black-hole")["seen"].as_str().unwrap();
    assert!(seen.contains("full size from the node"), "{seen}");
    nft(
        "add table inet hole; add chain inet hole out { type filter hook output priority 0; }; add rule inet hole out oifname up0 udp length > 1350 drop",
    )?;
    let lost = clinic.sick(
        "large packets from the node are lost",
        &["mtu-black-hole"],
        &[],
    )?;
    let seen = lost.finding("mtu-black-hole")["seen"].as_str().unwrap();
    assert!(seen.contains("from the node to here"), "{seen}");
    nft("delete table inet hole")?;
    clinic.write(&healthy);

    let squatter = Nginx::serve_tls(&lab, &lab.entrance, "squatter", 443, false)?;
    let taken = clinic.sick("a port that nginx has", &["takes-socket"], &[])?;
    let seen = taken.finding("takes-socket")["seen"].as_str().unwrap();
    let pid = squatter.daemon().pid();
    assert!(
        seen.starts_with(&format!("nginx (process {pid})")),
        "{seen}"
    );
    let stop = taken.fix("takes-socket", "here");
    assert_eq!(stop["command"], format!("kill {pid}"));
    clinic.apply(&stop)?;
    squatter.daemon().wait_exit(Duration::from_secs(10))?;
    clinic.healthy("nginx is gone", &[])?;

    clinic.shell(
        "nft add table ip svc; nft 'add chain ip svc pre { type nat hook prerouting priority -100; }'; nft add rule ip svc pre tcp dport 443 dnat to 10.77.0.1",
    )?;
    let translated = clinic.sick("a port of a container", &["takes-translated"], &[])?;
    let seen = translated.finding("takes-translated")["seen"]
        .as_str()
        .unwrap();
    assert!(seen.contains("chain pre"), "{seen}");
    clinic.shell(
        "nft delete table ip svc; nft add table ip bans; nft 'add chain ip bans in { type filter hook input priority 0; }'; nft add rule ip bans in ip saddr 198.51.100.4 drop",
    )?;
    let bans = clinic.healthy("a ban", &[])?;
    assert_eq!(bans.finding("firewall-passed-by")["verdict"], "warning");
    clinic.shell("nft delete table ip bans")?;

    let mut locked_out = clinic.command(&program()?)?;
    locked_out
        .args(["doctor", "--json", "--no-trial", "--offline"])
        .env("SSH_CONNECTION", "198.18.0.2 50000 203.0.113.7 443");
    let locked_out = clinic.ask(&mut locked_out)?;
    assert_eq!(locked_out.failures(), ["takes-ssh"]);
    assert_eq!(locked_out.code, Some(1));

    clinic.shell("echo 20000 40000 > /proc/sys/net/ipv4/ip_local_port_range")?;
    clinic.mended("ports that overlap", "source-ports-shared", "here")?;

    let dump = clinic.shell("wg show wg0 dump")?;
    let key = dump.lines().nth(1).and_then(|line| line.split('\t').next());
    let key = key.unwrap();
    clinic.shell(&format!("wg set wg0 peer {key} allowed-ips fd00::99/128"))?;
    clinic.mended("AllowedIPs without the node", "allowed-ips", "here")?;

    // Its endpoint is wrong, and it was never heard. The node must not call by itself.
    lab.nodes[0].namespace.ip("link set wg0 down")?;
    let allowed = format!("allowed-ips {ip}/32");
    clinic.shell(&format!(
        "wg set wg0 peer {key} remove && wg set wg0 peer {key} {allowed} endpoint 172.31.0.2:9"
    ))?;
    clinic.sick("a wrong endpoint", &["handshake"], &[])?;
    lab.nodes[0].namespace.ip("link set wg0 up")?;
    clinic.shell(&format!("wg set wg0 peer {key} endpoint 172.31.0.2:51820"))?;
    wait_until("a handshake", Duration::from_secs(40), || {
        clinic.diagnose(&[]).is_ok_and(|own| own.code == Some(0))
    })?;

    let elsewhere = lab.folder().join("plain/forwarder");
    let mut unmounted = clinic.command(&program()?)?;
    unmounted
        .args(["doctor", "--json", "--no-trial", "--offline", "--bpffs"])
        .arg(&elsewhere);
    let diagnosis = clinic.ask(&mut unmounted)?;
    assert_eq!(diagnosis.failures(), ["bpffs"], "{:#}", diagnosis.report);
    clinic.apply(&diagnosis.fix("bpffs", "here"))?;
    assert!(clinic.ask(&mut unmounted)?.failures().is_empty());

    // Where Tailscale is, clients' addresses cannot be kept.
    clinic.shell("ip tuntap add tailscale0 mode tun && ip addr add 100.64.0.1/10 dev tailscale0 && ip link set dev tailscale0 up mtu 1280")?;
    let tailnet = clinic
        .config("transparent", "100.64.0.2:443")
        .replace("wg0", "tailscale0");
    clinic.write(&tailnet);
    clinic.mended_with(
        "transparent by Tailscale",
        "transparent-tailscale",
        "config",
        &["--offline"],
    )
}

#[test]
fn broken_nodes_are_named_and_mended() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::Ethernet, 1).build()?;
    let _bare = web(&lab, WebOptions::new("bare", 443))?;
    let _proxied = web(&lab, WebOptions::new("proxied", 8443).proxy())?;
    let clinic = Clinic::new(&lab);

    clinic.write(&clinic.config("proxy-v2", &clinic.at(8443)));
    let sound = clinic.healthy("proxy-v2", &[])?;
    let seen = sound.finding("node-tls")["seen"].as_str().unwrap();
    assert!(seen.contains("insists on it"), "{seen}");

    clinic.write(&clinic.config("masquerade", &clinic.at(444)));
    clinic.sick("a node that is down", &["node-unreachable"], &[])?;
    let started = web(&lab, WebOptions::new("late", 444))?;
    clinic.healthy("a node that was started", &[])?;
    drop(started);

    clinic.write(&clinic.config("proxy-v2", &clinic.at(443)));
    clinic.mended("no PROXY support", "proxy-not-expected", "config")?;

    for mode in ["masquerade", "transparent"] {
        clinic.write(&clinic.config(mode, &clinic.at(8443)));
        clinic.mended("a node that insists on PROXY", "proxy-required", "config")?;
    }

    let _silent = Recorder::start(&lab.nodes[0].namespace, 7000)?;
    clinic.write(&clinic.config("masquerade", &clinic.at(7000)));
    clinic.sick("a node without TLS", &["node-tls"], &[])?;

    let folder = lab.folder().join("expired");
    std::fs::create_dir_all(&folder).unwrap();
    let expired = Pki::create_for(&folder, &[NAME], Some(2024))?;
    let node = &lab.nodes[0].namespace;
    let _expired = WebServer::start(node, &expired, WebOptions::new("expired", 9443))?;
    clinic.write(&clinic.config("masquerade", &clinic.at(9443)));
    clinic.sick("an expired certificate", &["certificate-expired"], &[])?;

    let foreign = clinic
        .config("masquerade", &clinic.at(443))
        .replace(NAME, "www.example.com");
    clinic.write(&foreign);
    clinic.sick("a certificate of other names", &["certificate-name"], &[])?;

    let hosts = ["--private-host", PRIVATE];
    clinic.write(&clinic.config("masquerade", &clinic.at(443)));
    let fronted = clinic.sick("a private site behind a listed name", &["fronting"], &hosts)?;
    // rustls minds another name in a second hello; what OpenSSL does with it depends on what there is to serve.
    let second = |diagnosis: &Diagnosis| {
        let finding = diagnosis.finding("second-hello");
        let word = |key: &str| finding[key].as_str().unwrap().to_owned();
        (word("verdict"), word("seen"))
    };
    let (verdict, seen) = second(&fronted);
    assert!(verdict == "ok" && seen.contains("is refused"), "{seen}");
    let _lax = Nginx::serve_only(&lab, node, PRIVATE, 9001)?;
    clinic.write(&clinic.config("masquerade", &clinic.at(9001)));
    let (verdict, seen) = second(&clinic.diagnose(&hosts)?);
    assert!(verdict == "warning" && seen.contains("goes on"), "{seen}");
    let _only = Nginx::serve_only(&lab, node, NAME, 9000)?;
    clinic.write(&clinic.config("masquerade", &clinic.at(9000)));
    let separate = clinic.healthy("an ingress port of its own", &hosts)?;
    assert_eq!(separate.finding("fronting")["verdict"], "ok");
    assert_eq!(separate.finding("fronting-unknown")["verdict"], "ok");
    let (verdict, seen) = second(&separate);
    assert!(verdict == "ok" && seen.contains("serves nothing"), "{seen}");
    Ok(())
}

#[test]
fn a_running_entrance_is_compared_with_its_file() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::Ethernet, 1).build()?;
    let _web = web(&lab, WebOptions::new("node0", 443))?;
    let mut clinic = Clinic::new(&lab);
    let config = clinic.config("masquerade", &clinic.at(443));
    let forwarder = Forwarder::start(&lab, &config)?;
    clinic.file = forwarder.config().to_path_buf();
    clinic.bpffs = forwarder.bpffs().to_path_buf();
    // Strict reverse-path filters do no harm here: flows are taken before them.
    clinic.shell(
        "for own in all eth0 lan0; do echo 1 > /proc/sys/net/ipv4/conf/$own/rp_filter; done",
    )?;
    let serves = || -> Result<()> {
        let client = &lab.clients[0].namespace;
        let entrance = std::net::SocketAddr::new(lab.public(Family::V4), 443);
        let curl = forwarder_tests::client::Curl::new(client, &lab.pki, NAME, entrance, "/")?;
        let report: forwarder_tests::server::web::Report = curl.json()?;
        assert_eq!(report.server, "node0");
        Ok(())
    };
    serves()?;
    let sound = clinic.healthy("running", &[])?;
    for code in ["daemon", "not-attached", "not-in-use", "rp-filter"] {
        assert_eq!(sound.finding(code)["verdict"], "ok", "{:#}", sound.report);
    }
    let seen = sound.finding("rp-filter")["seen"].as_str().unwrap();
    assert!(seen.contains("strict on eth0, lan0"), "{seen}");

    std::fs::write(&clinic.file, config.replace(NAME, "new.example.org")).unwrap();
    let behind = clinic.healthy("a file that was edited", &[])?;
    let finding = behind.finding("not-in-use");
    assert_eq!(finding["verdict"], "warning", "{finding:#}");
    clinic.apply(&behind.fix("not-in-use", "here"))?;
    let reloaded = clinic.healthy("reloaded", &[])?;
    assert_eq!(reloaded.finding("not-in-use")["verdict"], "ok");
    serves().expect_err("the old name is gone");
    Ok(())
}

/// `forwarder init` as a person meets it: on a terminal.
const TYPE: &str = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
for answer in sys.stdin.read().splitlines():
    while not shown.rstrip(b" ").endswith(b":"):
        shown = os.read(terminal, 4096)
        sys.stdout.write(shown.decode())
    shown = b""
    os.write(terminal, answer.encode() + b"\n")
try:
    while True:
        more = os.read(terminal, 4096)
        if not more:
            break
        sys.stdout.write(more.decode())
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn init_writes_what_check_takes_and_run_serves() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?;
    let _web = web(&lab, WebOptions::new("node0", 443))?;
    let clinic = Clinic::new(&lab);
    let file = lab.folder().join("made/forwarder.toml");
    let init = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = clinic.command(&program()?)?;
        let said = output(
            command
                .arg("init")
                .args(arguments)
                .arg("--output")
                .arg(&file),
        )?;
        let both = [said.stdout, said.stderr].concat();
        Ok((
            said.status.code(),
            String::from_utf8_lossy(&both).into_owned(),
        ))
    };
    let node = clinic.at(443);
    let (code, said) = init(&["--name", NAME])?;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("--node is missing") && said.contains(&node),
        "{said}"
    );
    let (code, said) = init(&["--node", &node])?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--name is missing"), "{said}");
    assert!(!file.exists());

    let six = clinic.node().socket(Family::V6, 443).to_string();
    let (code, said) = init(&["--node", &node, "--name", NAME, "--public", "ens3"])?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("eth0"), "those that exist: {said}");
    assert!(!file.exists());
    let four = [
        "--node",
        &node,
        "--name",
        NAME,
        "--client-address",
        "masquerade",
    ];
    let (code, said) = init(&four)?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("does not claim IPv6"), "{said}");
    std::fs::remove_file(&file).unwrap();

    let whole = [
        "--node",
        &node,
        "--node",
        &six,
        "--name",
        NAME,
        "--client-address",
        "masquerade",
    ];
    let (code, said) = init(&whole)?;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("forwarder --config") && said.contains(" doctor"),
        "{said}"
    );
    let (code, said) = init(&whole)?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--force"), "{said}");
    let check = ["check", "--deny-warnings", "--config"];
    run(clinic.command(&program()?)?.args(check).arg(&file))?;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("public = [\"eth0\"]") && text.contains("tunnels = [\"wg0\"]"),
        "{text}"
    );

    let _forwarder = Forwarder::start(&lab, &text)?;
    let entrance = std::net::SocketAddr::new(lab.public(Family::V4), 443);
    let client = &lab.clients[0].namespace;
    let curl = forwarder_tests::client::Curl::new(client, &lab.pki, NAME, entrance, "/")?;
    let report: forwarder_tests::server::web::Report = curl.json()?;
    assert_eq!(report.server, "node0");

    // The same by questions: interfaces, port, the peer that is offered, the mode, and a name.
    let asked = lab.folder().join("asked.toml");
    let mut terminal = clinic.command(&command::find("python3")?)?;
    terminal
        .args(["-c", TYPE])
        .arg(program()?)
        .args(["init", "--output"])
        .arg(&asked);
    let shown = command::run_with_input(
        &mut terminal,
        &format!("\n\n\n{node} {six}\nmasqerade\nmasquerade\n{NAME}\n"),
    )?;
    assert!(shown.contains("it is one of"), "a slip is said: {shown}");
    let typed = std::fs::read_to_string(&asked).unwrap();
    assert_eq!(typed, text, "{shown}");
    Ok(())
}
