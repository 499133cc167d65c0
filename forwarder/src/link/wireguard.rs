//! What a WireGuard interface says about its peers: when they last shook hands, and which addresses they hold.
//!
//! The kernel's WireGuard is asked by generic netlink (`include/uapi/linux/wireguard.h`; needs
//! CAP_NET_ADMIN), WireGuard in user space by its socket ("cross-platform userspace implementation",
//! <https://www.wireguard.com/xplatform/>): wireguard-go and boringtun serve it. Tailscale does neither. Both
//! answer with keys too; none of them is kept.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_packet_wireguard::{
    WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd, WireguardMessage,
    WireguardPeer, WireguardPeerAttribute,
};
use rtnetlink::packet_core::{
    Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, ParseableParametrized,
};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr as NetlinkAddress};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where WireGuard in user space listens: `<interface>.sock`.
const SOCKETS: &str = "/var/run/wireguard";
/// It answers within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why nothing is known about an interface's peers.
#[derive(Debug, Error)]
pub enum WireGuardError {
    /// It is another kind of tunnel, or one that does not tell.
    #[error("not WireGuard of the kernel, and nobody answers at {}", socket.display())]
    Nobody {
        /// Where WireGuard in user space would answer.
        socket: PathBuf,
    },
    /// The socket is there, but gives no answer.
    #[error("{} does not answer", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not answer.
    #[error("the kernel does not tell about its WireGuard")]
    Kernel(#[source] io::Error),
}

/// Who told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The kernel.
    Kernel,
    /// WireGuard in user space.
    Socket,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Who told.
    pub source: Source,
    /// Its peers.
    pub peers: Vec<Peer>,
}

/// The other end of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Tells peers apart while an answer is read; never shown.
    key: Vec<u8>,
    /// What it may send from, and what is sent to it.
    pub allowed: Vec<IpNet>,
    /// The last handshake; `None` before the first.
    pub handshake: Option<SystemTime>,
    /// Where its packets came from last.
    pub endpoint: Option<SocketAddr>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it, handshakes included.
    pub tx_bytes: u64,
}

impl Device {
    /// The peer that packets to `address` go to: the one with the longest prefix, as in WireGuard.
    pub fn peer(&self, address: IpAddr) -> Option<&Peer> {
        let holding = |peer: &Peer| {
            let nets = peer.allowed.iter().filter(|net| net.contains(&address));
            nets.map(IpNet::prefix_len).max()
        };
        let peers = self.peers.iter();
        let held = peers.filter_map(|peer| Some((holding(peer)?, peer)));
        held.max_by_key(|(length, _)| *length).map(|(_, peer)| peer)
    }
}

/// Asks about an interface; `in_kernel` says who drives it. May wait for two seconds.
pub fn ask(interface: &str, in_kernel: bool) -> Result<Device, WireGuardError> {
    if in_kernel {
        return Ok(Device {
            source: Source::Kernel,
            peers: kernel(interface).map_err(WireGuardError::Kernel)?,
        });
    }
    let socket = PathBuf::from(SOCKETS).join(format!("{interface}.sock"));
    let stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    WireGuardError::Nobody { socket }
                }
                _ => WireGuardError::Socket {
                    socket,
                    source: error,
                },
            });
        }
    };
    let peers = converse(stream).map_err(|source| WireGuardError::Socket { socket, source })?;
    Ok(Device {
        source: Source::Socket,
        peers,
    })
}

fn converse(mut stream: UnixStream) -> io::Result<Vec<Peer>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"get=1\n\n")?;
    read_peers(BufReader::new(stream))
}

/// Reads `key=value` lines up to the empty one. A `public_key` begins a peer; unknown keys are passed over.
fn read_peers(answer: impl BufRead) -> io::Result<Vec<Peer>> {
    let mut peers: Vec<Peer> = Vec::new();
    for line in answer.lines() {
        let line = line?;
        let Some((key, value)) = line.split_once('=') else {
            break;
        };
        if key == "errno" && value != "0" {
            return Err(io::Error::other(format!("it answers errno {value}")));
        }
        if key == "public_key" {
            peers.push(Peer::default());
        }
        let Some(peer) = peers.last_mut() else {
            continue;
        };
        let number = || value.parse::<u64>().map_err(io::Error::other);
        match key {
            "allowed_ip" => peer.allowed.push(value.parse().map_err(io::Error::other)?),
            "endpoint" => peer.endpoint = value.parse().ok(),
            "last_handshake_time_sec" => peer.handshake = moment(number()?),
            "rx_bytes" => peer.rx_bytes = number()?,
            "tx_bytes" => peer.tx_bytes = number()?,
            _ => {}
        }
    }
    Ok(peers)
}

/// Seconds since 1970, where 0 stands for never.
fn moment(seconds: u64) -> Option<SystemTime> {
    let since = Some(seconds).filter(|seconds| *seconds != 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))
}

fn kernel(interface: &str) -> io::Result<Vec<Peer>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    let mut family = None;
    let question = GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(
            WireguardMessage::family_name().to_owned(),
        )],
    };
    request(&socket, GenlMessage::from_payload(question), 0, |answer| {
        family = answer.nlas.iter().find_map(|own| match own {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
    })?;
    let family = family.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut question = GenlMessage::from_payload(WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::IfName(interface.to_owned())],
    });
    question.set_resolved_family_id(family);
    let mut peers = Vec::new();
    request(&socket, question, NLM_F_DUMP, |answer| {
        for attribute in &answer.attributes {
            if let WireguardAttribute::Peers(part) = attribute {
                part.iter().for_each(|peer| add(&mut peers, peer));
            }
        }
    })?;
    Ok(peers)
}

/// Sends one request and calls `each` with every message of the answer. The kernel answers at once, in the
/// context of whoever reads, so nothing here waits.
fn request<F>(
    socket: &Socket,
    question: GenlMessage<F>,
    flags: u16,
    mut each: impl FnMut(F),
) -> io::Result<()>
where
    F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + std::fmt::Debug,
{
    let mut message = NetlinkMessage::from(question);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<GenlMessage<F>>::deserialize(rest);
            let message = message.map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(error.to_io());
                }
                NetlinkPayload::Error(_) => return Ok(()),
                NetlinkPayload::InnerMessage(answer) => {
                    each(answer.payload);
                    if flags & NLM_F_DUMP == 0 {
                        return Ok(());
                    }
                }
                _ => {}
            }
            // NLMSG_ALIGN
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// Adds a peer; one whose addresses did not fit into one message goes on in the next under the same key, with
/// nothing but addresses.
fn add(peers: &mut Vec<Peer>, part: &WireguardPeer) {
    let mut peer = Peer::default();
    for attribute in part.iter() {
        match attribute {
            WireguardPeerAttribute::PublicKey(key) => peer.key = key.to_vec(),
            WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
            WireguardPeerAttribute::LastHandshake(time) => {
                peer.handshake = u64::try_from(time.seconds).ok().and_then(moment);
            }
            WireguardPeerAttribute::RxBytes(bytes) => peer.rx_bytes = *bytes,
            WireguardPeerAttribute::TxBytes(bytes) => peer.tx_bytes = *bytes,
            WireguardPeerAttribute::AllowedIps(all) => {
                peer.allowed = all.iter().filter_map(net).collect();
            }
            _ => {}
        }
    }
    match peers.last_mut().filter(|last| last.key == peer.key) {
        Some(last) => last.allowed.append(&mut peer.allowed),
        None => peers.push(peer),
    }
}

fn net(allowed: &WireguardAllowedIp) -> Option<IpNet> {
    let (mut address, mut length) = (None, None);
    for attribute in allowed.iter() {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(ip) => address = Some(*ip),
            WireguardAllowedIpAttr::Cidr(bits) => length = Some(*bits),
            _ => {}
        }
    }
    IpNet::new(address?, length?).ok()
}

#[cfg(test)]
mod tests {
    use netlink_packet_wireguard::{WireguardAddressFamily, WireguardTimeSpec};

    use super::*;

    /// What wireguard-go 0.0.20220316 answered, its keys replaced.
    const ANSWER: &str = "\
private_key=0000000000000000000000000000000000000000000000000000000000000001
listen_port=51820
public_key=0000000000000000000000000000000000000000000000000000000000000002
preshared_key=0000000000000000000000000000000000000000000000000000000000000000
protocol_version=1
endpoint=172.31.0.2:51820
last_handshake_time_sec=1764156000
last_handshake_time_nsec=123
tx_bytes=1384
rx_bytes=1292
persistent_keepalive_interval=0
allowed_ip=10.8.0.2/32
allowed_ip=fd00:8::2/128
public_key=0000000000000000000000000000000000000000000000000000000000000003
preshared_key=0000000000000000000000000000000000000000000000000000000000000000
protocol_version=1
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=148
rx_bytes=0
persistent_keepalive_interval=0
allowed_ip=10.0.0.0/8
errno=0

";

    #[test]
    fn the_answer_of_wireguard_in_user_space_is_read() {
        let peers = read_peers(ANSWER.as_bytes()).unwrap();
        let device = Device {
            source: Source::Socket,
            peers,
        };
        let of = |text: &str| device.peer(text.parse().unwrap());
        let first = of("10.8.0.2").unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_156_000);
        assert_eq!(first.handshake, Some(at));
        assert_eq!((first.tx_bytes, first.rx_bytes), (1_384, 1_292));
        assert_eq!(first.endpoint, "172.31.0.2:51820".parse().ok());
        assert_eq!(of("fd00:8::2"), Some(first));
        let second = of("10.8.0.3").unwrap();
        assert_eq!((second.handshake, second.endpoint), (None, None), "never");
        assert_eq!(of("192.0.2.1"), None, "nobody's");
        assert!(read_peers(&b"errno=1\n\n"[..]).is_err());
        assert!(read_peers(&b"public_key=0\nallowed_ip=x\n\n"[..]).is_err());
    }

    fn part(key: u8, allowed: &str, handshake: Option<i64>) -> WireguardPeer {
        let net: IpNet = allowed.parse().unwrap();
        let allowed = WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv4),
            WireguardAllowedIpAttr::IpAddr(net.addr()),
            WireguardAllowedIpAttr::Cidr(net.prefix_len()),
        ]);
        let mut attributes = vec![WireguardPeerAttribute::PublicKey([key; 32])];
        let time = |seconds| WireguardTimeSpec {
            seconds,
            nano_seconds: 0,
        };
        attributes.extend(
            handshake
                .map(time)
                .map(WireguardPeerAttribute::LastHandshake),
        );
        attributes.push(WireguardPeerAttribute::AllowedIps(vec![allowed]));
        WireguardPeer(attributes)
    }

    #[test]
    fn a_peer_in_two_messages_is_one() {
        let mut peers = Vec::new();
        add(&mut peers, &part(1, "10.8.0.2/32", Some(7)));
        add(&mut peers, &part(1, "10.9.0.0/16", None));
        add(&mut peers, &part(2, "10.10.0.2/32", Some(0)));
        let [first, second] = peers.as_slice() else {
            panic!("{peers:?}");
        };
        assert_eq!(first.allowed.len(), 2);
        assert_eq!(first.handshake, moment(7));
        assert_eq!(second.handshake, None);
    }

    #[test]
    fn an_interface_of_another_kind_says_so() {
        let error = ask("forwarder-none", false).unwrap_err();
        assert!(error.to_string().contains("forwarder-none.sock"), "{error}");
        // Without the module the family does not exist, with it the interface does not.
        assert!(matches!(
            ask("forwarder-none", true),
            Err(WireGuardError::Kernel(_))
        ));
    }
}
