//! WireGuard between the entrance and its nodes.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Family, Lab, Node, TunnelKind, tunnel_address};
use crate::command::{self, run, run_with_input};
use crate::error::{Context, Result};
use crate::netns::Namespace;
use crate::process::Daemon;

const FIRST_PORT: u16 = 51_820;

/// Whether this machine's kernel has WireGuard.
pub fn kernel_has_wireguard() -> Result<bool> {
    crate::require_root()?;
    let probe = Namespace::create(&format!("fw{}-probe", std::process::id()))?;
    Ok(probe.ip("link add wg0 type wireguard").is_ok())
}

/// Connects the entrance with the nodes of one WireGuard tunnel; the entrance's end comes last.
pub(super) fn connect(
    folder: &Path,
    entrance: &Namespace,
    nodes: &[Node],
    kind: TunnelKind,
    number: u8,
    mtu: u16,
) -> Result<Vec<End>> {
    let port = FIRST_PORT + u16::from(number);
    let entrance_key = Key::generate()?;
    let mut entrance_peers = String::new();
    let mut ends = Vec::new();
    for node in nodes {
        let key = Key::generate()?;
        let addresses = Family::BOTH.map(|family| node.address(family).to_string());
        let [v4, v6] = &addresses;
        entrance_peers.push_str(&format!(
            "[Peer]\nPublicKey = {}\nEndpoint = 172.31.{}.2:{FIRST_PORT}\nAllowedIPs = {v4}/32, {v6}/128\n",
            key.public, node.index
        ));
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {FIRST_PORT}\n\
             [Peer]\nPublicKey = {}\nEndpoint = 172.31.{}.1:{port}\nAllowedIPs = 0.0.0.0/0, ::/0\n",
            key.private, entrance_key.public, node.index
        );
        let stem = folder.join(format!("{}-wg0", node.namespace.name()));
        let end = End {
            interface: "wg0".to_owned(),
            at_entrance: false,
            stem,
            addresses,
            kind,
            mtu,
            daemon: None,
        };
        ends.push(end.configured(&text)?.up(&node.namespace)?);
    }
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {port}\n{entrance_peers}",
        entrance_key.private
    );
    let interface = format!("wg{number}");
    let stem = folder.join(format!("{}-{interface}", entrance.name()));
    let addresses = Family::BOTH.map(|family| tunnel_address(8 + number, 1, family).to_string());
    let end = End {
        interface,
        at_entrance: true,
        stem,
        addresses,
        kind,
        mtu,
        daemon: None,
    };
    ends.push(end.configured(&text)?.up(entrance)?);
    Ok(ends)
}

/// Sends one datagram to each node, so that the WireGuard handshake is over before a test begins.
pub(super) fn warm_up(lab: &Lab) -> Result<()> {
    for node in &lab.nodes {
        let to = node.socket(Family::V4, 9);
        lab.entrance
            .enter(|| UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"hello", to)))?
            .context(|| format!("sending a first datagram to {to}"))?;
    }
    Ok(())
}

struct Key {
    private: String,
    public: String,
}

impl Key {
    fn generate() -> Result<Self> {
        let private = run(command::command("wg")?.arg("genkey"))?
            .trim()
            .to_owned();
        let public = run_with_input(command::command("wg")?.arg("pubkey"), &private)?
            .trim()
            .to_owned();
        Ok(Self { private, public })
    }
}

/// One end of a tunnel.
#[derive(Debug)]
pub(super) struct End {
    pub(super) interface: String,
    pub(super) at_entrance: bool,
    /// The path of its files, without their endings.
    stem: PathBuf,
    addresses: [String; 2],
    kind: TunnelKind,
    mtu: u16,
    /// The WireGuard in user space, if it is one.
    pub(super) daemon: Option<Daemon>,
}

impl End {
    /// Removes the interface; [`Self::make`] makes it anew.
    pub(super) fn remove(&mut self, namespace: &Namespace) -> Result<()> {
        // In user space it goes with its daemon.
        if self.daemon.take().is_some() {
            return Ok(());
        }
        namespace.ip(&format!("link del {}", self.interface))
    }

    fn configured(self, text: &str) -> Result<Self> {
        let file = self.stem.with_extension("conf");
        std::fs::write(&file, text).context(|| format!("writing {}", file.display()))?;
        Ok(self)
    }

    fn up(mut self, namespace: &Namespace) -> Result<Self> {
        self.make(namespace)?;
        Ok(self)
    }

    pub(super) fn make(&mut self, namespace: &Namespace) -> Result<()> {
        let interface = &self.interface;
        let mut wg = if self.kind == TunnelKind::KernelWireGuard {
            namespace.ip(&format!("link add {interface} type wireguard"))?;
            namespace.command("wg")?
        } else {
            let daemon = self.start_daemon(namespace)?;
            // wg finds the daemon through a socket that exists only in the daemon's mount namespace.
            let mut wg = Command::new(command::find("nsenter")?);
            wg.args(["-m", "-n", "-t", &daemon.pid().to_string()])
                .arg(command::find("wg")?);
            self.daemon = Some(daemon);
            wg
        };
        run(wg
            .args(["setconf", interface])
            .arg(self.stem.with_extension("conf")))?;
        let [v4, v6] = &self.addresses;
        namespace.ip(&format!(
            "link set {interface} mtu {}\naddr add {v4}/24 dev {interface}\n\
             addr add {v6}/64 dev {interface} nodad\nlink set {interface} up",
            self.mtu
        ))
    }

    fn start_daemon(&self, namespace: &Namespace) -> Result<Daemon> {
        let mut command = namespace.command("sh")?;
        command.args([
            "-c",
            "mount -t tmpfs tmpfs /run && mkdir -p /var/run/wireguard && exec \"$0\" -f \"$1\"",
        ]);
        command
            .arg(command::find("wireguard-go")?)
            .arg(&self.interface);
        let daemon = Daemon::start("wireguard-go", command, &self.stem.with_extension("log"))?;
        let socket = format!(
            "/proc/{}/root/run/wireguard/{}.sock",
            daemon.pid(),
            self.interface
        );
        daemon.wait_until("its control socket", Duration::from_secs(10), || {
            Path::new(&socket).exists()
        })?;
        Ok(daemon)
    }
}
