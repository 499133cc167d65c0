//! WireGuard between the entrance and its nodes.

use std::net::UdpSocket;
use std::path::Path;
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

/// Connects the entrance with the nodes of one WireGuard tunnel.
pub(super) fn connect(
    folder: &Path,
    entrance: &Namespace,
    nodes: &[Node],
    kind: TunnelKind,
    number: u8,
    mtu: u16,
) -> Result<Vec<Daemon>> {
    let port = FIRST_PORT + u16::from(number);
    let entrance_key = Key::generate()?;
    let mut entrance_peers = String::new();
    let mut daemons = Vec::new();
    for node in nodes {
        let key = Key::generate()?;
        let (v4, v6) = (node.address(Family::V4), node.address(Family::V6));
        entrance_peers.push_str(&format!(
            "[Peer]\nPublicKey = {}\nEndpoint = 172.31.{}.2:{FIRST_PORT}\nAllowedIPs = {v4}/32, {v6}/128\n",
            key.public, node.index
        ));
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {FIRST_PORT}\n\
             [Peer]\nPublicKey = {}\nEndpoint = 172.31.{}.1:{port}\nAllowedIPs = 0.0.0.0/0, ::/0\n",
            key.private, entrance_key.public, node.index
        );
        let end = End {
            namespace: &node.namespace,
            interface: "wg0",
            text,
            kind,
            folder,
            mtu,
        };
        daemons.extend(end.set_up([v4, v6].map(|ip| ip.to_string()))?);
    }
    let interface = format!("wg{number}");
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {port}\n{entrance_peers}",
        entrance_key.private
    );
    let end = End {
        namespace: entrance,
        interface: &interface,
        text,
        kind,
        folder,
        mtu,
    };
    let addresses = Family::BOTH.map(|family| tunnel_address(8 + number, 1, family).to_string());
    daemons.extend(end.set_up(addresses)?);
    Ok(daemons)
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
struct End<'a> {
    namespace: &'a Namespace,
    interface: &'a str,
    text: String,
    kind: TunnelKind,
    folder: &'a Path,
    mtu: u16,
}

impl End<'_> {
    fn set_up(self, addresses: [String; 2]) -> Result<Option<Daemon>> {
        let Self {
            namespace,
            interface,
            kind,
            folder,
            mtu,
            ..
        } = &self;
        let file = folder.join(format!("{}-{interface}.conf", namespace.name()));
        std::fs::write(&file, &self.text).context(|| format!("writing {}", file.display()))?;
        let (mut wg, daemon) = if *kind == TunnelKind::KernelWireGuard {
            namespace.ip(&format!("link add {interface} type wireguard"))?;
            (namespace.command("wg")?, None)
        } else {
            let daemon = self.start_daemon()?;
            // wg finds the daemon through a socket that exists only in the daemon's mount namespace.
            let mut wg = Command::new(command::find("nsenter")?);
            wg.args(["-m", "-n", "-t", &daemon.pid().to_string()])
                .arg(command::find("wg")?);
            (wg, Some(daemon))
        };
        run(wg.args(["setconf", interface]).arg(&file))?;
        let [v4, v6] = addresses;
        namespace.ip(&format!(
            "link set {interface} mtu {mtu}\naddr add {v4}/24 dev {interface}\n\
             addr add {v6}/64 dev {interface} nodad\nlink set {interface} up"
        ))?;
        Ok(daemon)
    }

    fn start_daemon(&self) -> Result<Daemon> {
        let program = command::find("wireguard-go")?;
        let mut command = self.namespace.command("sh")?;
        command.args([
            "-c",
            "mount -t tmpfs tmpfs /run && mkdir -p /var/run/wireguard && exec \"$0\" -f \"$1\"",
        ]);
        command.arg(program).arg(self.interface);
        let log = self
            .folder
            .join(format!("{}-{}.log", self.namespace.name(), self.interface));
        let daemon = Daemon::start("wireguard-go", command, &log)?;
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
