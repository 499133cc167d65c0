//! Ports that this machine uses itself: a listener that claims one takes it away from whoever had it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::claim;
use super::diagnostic::Diagnostic;
use super::model::{Config, Listener};
use crate::link::Network;

/// `TCP_LISTEN` of `include/net/tcp_states.h`, as `/proc/net/tcp` writes it.
const LISTEN: &str = "0A";

/// What `sshd` tells a session about itself.
const SESSION: &str = "SSH_CONNECTION";
/// Processes between this one and the session's shell: `sudo`, its monitor, a script.
const ANCESTORS: usize = 16;

/// The machine's own sockets that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnSockets {
    /// Where something listens.
    pub listening: Vec<Listening>,
    /// The end of the SSH session that this process runs in, on this machine.
    pub ssh: Option<SocketAddr>,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its inode, by which the process that holds it is found.
    pub inode: u64,
}

/// A port of this machine that a listener of the configuration claims.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// Who claims it.
    pub listener: &'a Listener,
    /// From whom.
    pub from: Holder,
}

/// Who had a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The SSH session that this process runs in.
    Ssh(SocketAddr),
    /// A program that listens.
    Program(Listening),
}

impl OwnSockets {
    /// Those of this network namespace and this session.
    pub fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let tables = [read("/proc/net/tcp"), read("/proc/net/tcp6")];
        let session = std::env::var(SESSION).ok().or_else(session_of_ancestors);
        Self {
            listening: tables.iter().flat_map(|table| listening(table)).collect(),
            ssh: session.as_deref().and_then(ssh),
        }
    }
}

/// The session of the nearest process above that has one: `sudo` keeps the variable from its children, but the
/// shell that called it has it. What may not be read is passed over.
fn session_of_ancestors() -> Option<String> {
    let mut pid = std::process::id();
    for _ in 0..ANCESTORS {
        pid = parent(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if let Some(session) = session_in(&environment) {
            return Some(session);
        }
    }
    None
}

/// `proc_pid_stat(5)`: the fourth field. The second one, in parentheses, may hold anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let parent = fields.split_whitespace().nth(1)?.parse().ok()?;
    (parent > 1).then_some(parent)
}

/// `proc_pid_environ(5)`: settings with a NUL after each.
fn session_in(environment: &[u8]) -> Option<String> {
    let settings = environment.split(|byte| *byte == 0);
    let value = settings
        .filter_map(|own| own.strip_prefix(SESSION.as_bytes())?.strip_prefix(b"="))
        .next()?;
    String::from_utf8(value.to_vec()).ok()
}

/// Warnings about claimed ports.
pub fn check(config: &Config, network: &Network, own: &OwnSockets) -> Vec<Diagnostic> {
    let taken = taken(config, network, own);
    taken.iter().map(warning).collect()
}

/// Claimed ports that are in use on this machine, at most one for each listener.
pub fn taken<'a>(config: &'a Config, network: &Network, own: &OwnSockets) -> Vec<Taken<'a>> {
    let mut all = Vec::new();
    for (at, listener) in config.listeners.iter().enumerate() {
        let claimed = claim::claimed(config, network, at);
        let takes = |socket: &SocketAddr| {
            let ip = socket.ip();
            // `::` may listen for IPv4 too.
            socket.port() == listener.port
                && (claimed.contains(&ip)
                    || claimed
                        .iter()
                        .any(|own| ip.is_unspecified() && (ip.is_ipv6() || own.is_ipv4())))
        };
        let ssh = own.ssh.filter(takes).map(Holder::Ssh);
        let program = || own.listening.iter().find(|socket| takes(&socket.address));
        if let Some(from) = ssh.or_else(|| program().copied().map(Holder::Program)) {
            all.push(Taken { listener, from });
        }
    }
    all
}

fn warning(taken: &Taken<'_>) -> Diagnostic {
    let name = &taken.listener.name;
    let port = taken.listener.port;
    match taken.from {
        Holder::Ssh(socket) => Diagnostic::warning(
            "takes-ssh",
            name.span(),
            format!(
                "listener `{}` takes the port of your SSH session, {socket}",
                name.get_ref()
            ),
        )
        .label("you would lock yourself out")
        .help("give the listener another port, or other `addresses`")
        .help("`forwarder run --confirm 60s` detaches by itself unless you confirm"),
        Holder::Program(socket) => Diagnostic::warning(
            "takes-socket",
            name.span(),
            format!(
                "listener `{}` takes port {port} from a program of this machine",
                name.get_ref()
            ),
        )
        .label(format!("something listens on {}", socket.address))
        .help(format!(
            "`ss -ltnp 'sport = {port}'` shows what; clients will not reach it while the forwarder is loaded"
        )),
    }
}

/// `proc_pid_net(5)`: the second column is `address:port`, the fourth the state, all in hexadecimal; the tenth is
/// the inode.
fn listening(table: &str) -> Vec<Listening> {
    let socket = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next()?;
        let state = columns.nth(1)?;
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let inode = columns.nth(5)?.parse().ok()?;
        (state == LISTEN).then_some(Listening {
            address: SocketAddr::new(address_of(address)?, port),
            inode,
        })
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// Words of 32 bits, each in the machine's own byte order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let mut octets = Vec::new();
    for word in hex.as_bytes().chunks(8) {
        let word = std::str::from_utf8(word).ok()?;
        octets.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    }
    match octets.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical()),
        _ => None,
    }
}

/// `SSH_CONNECTION` of `ssh(1)`: client address and port, server address and port.
fn ssh(session: &str) -> Option<SocketAddr> {
    let mut words = session.split(' ').skip(2);
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = "[entrance]\npublic=['eth0']\ntunnels=['wg0']\n[[listener]]\nname='https'\nprotocol='tls'\naddresses=['203.0.113.7']\nport=443\n[[pool]]\nclient_address='transparent'\nname='k3s'\nnodes=['10.0.0.2:443']\n[[route]]\nnames=['a.example.org']\npool='k3s'\n";

    fn codes(listening: &[&str], session: &str) -> Vec<&'static str> {
        let config = super::super::parse(Path::new("t"), TEXT).config.unwrap();
        let own = OwnSockets {
            listening: listening
                .iter()
                .map(|own| Listening {
                    address: own.parse().unwrap(),
                    inode: 1,
                })
                .collect(),
            ssh: ssh(session),
        };
        let findings = check(&config, &Network::default(), &own);
        findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn what_is_taken_is_said() {
        for address in ["0.0.0.0:443", "[::]:443", "203.0.113.7:443"] {
            assert_eq!(codes(&[address], ""), ["takes-socket"], "{address}");
        }
        for address in ["127.0.0.1:443", "0.0.0.0:8443", "[::1]:443"] {
            assert!(codes(&[address], "").is_empty(), "{address}");
        }
    }

    #[test]
    fn the_ssh_session_comes_first() {
        let session = "198.51.100.4 50000 203.0.113.7 443";
        assert_eq!(codes(&["0.0.0.0:443"], session), ["takes-ssh"]);
        assert!(codes(&[], "198.51.100.4 50000 203.0.113.7 22").is_empty());
        assert!(codes(&[], "nonsense").is_empty());
    }

    #[test]
    fn the_session_is_found_above_sudo() {
        assert_eq!(parent("77 (a) b) S 33 77 77"), Some(33));
        assert_eq!(parent("33 (init) S 1 1 1"), None);
        let environment = b"X=SSH_CONNECTION\0SSH_CONNECTION=1.2.3.4 5 6.7.8.9 22\0Y=";
        assert_eq!(
            session_in(environment).as_deref(),
            Some("1.2.3.4 5 6.7.8.9 22")
        );
        assert_eq!(session_in(b"SSH_CONNECTIONS=x\0"), None);
    }

    #[test]
    fn a_listening_socket_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let here = OwnSockets::here();
        let own = here.listening.iter().find(|own| own.address == address);
        // `/proc/self/fd/N` is a link to `socket:[inode]`.
        use std::os::fd::AsRawFd;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = own.unwrap().inode;
        assert_eq!(link.to_str().unwrap(), format!("socket:[{inode}]"));
    }
}
