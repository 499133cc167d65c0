//! Single values: words, numbers, durations, addresses, names of things.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_spanned::Spanned;

use super::context::Context;
use crate::config::diagnostic::Diagnostic;
use crate::config::model::Keyword;
use crate::config::raw::{Number, Text};
use crate::config::suggest;

/// Longest name of a listener, pool or node, in bytes.
const NAME_MAX: usize = 63;
/// `IFNAMSIZ` less its final zero.
const INTERFACE_NAME_MAX: usize = 15;

impl Context<'_> {
    /// One of a few words, or `default` when absent.
    pub(super) fn keyword<T: Keyword>(
        &mut self,
        key: &str,
        text: Option<&Text>,
        default: T,
    ) -> Option<T> {
        let Some(text) = text else {
            return Some(default);
        };
        let found = T::from_word(text.get_ref());
        if found.is_none() {
            let words = T::WORDS.iter().map(|(word, _)| *word);
            let finding = Diagnostic::error(
                "unknown-word",
                text.span(),
                format!("`{key}` cannot be `{}`", text.get_ref()),
            )
            .label(format!("expected {}", suggest::alternatives(words.clone())));
            self.push(match suggest::closest(text.get_ref(), words.clone()) {
                Some(meant) => finding.suggest(Some(meant)),
                None => finding.help(format!("write {}", suggest::alternatives(words))),
            });
        }
        found
    }

    /// A number in `range`, or `default` when absent.
    pub(super) fn number(
        &mut self,
        key: &str,
        number: Option<&Number>,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> Option<u32> {
        let Some(number) = number else {
            return Some(default);
        };
        let value = u32::try_from(*number.get_ref()).ok();
        let value = value.filter(|value| range.contains(value));
        if value.is_none() {
            let (least, most) = (range.start(), range.end());
            self.push(
                Diagnostic::error(
                    "out-of-range",
                    number.span(),
                    format!("`{key}` cannot be {}", number.get_ref()),
                )
                .label(format!("expected a number from {least} to {most}"))
                .help(if *number.get_ref() < i64::from(*least) {
                    format!("the least is {least}")
                } else {
                    format!("the most is {most}")
                }),
            );
        }
        value
    }

    /// A duration such as `2h4m` in `range`, or `default` when absent.
    pub(super) fn duration(
        &mut self,
        key: &str,
        text: Option<&Text>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Option<Duration> {
        let Some(text) = text else {
            return Some(default);
        };
        let label = match humantime::parse_duration(text.get_ref()) {
            Ok(duration) if range.contains(&duration) => return Some(duration),
            Ok(_) => format!(
                "expected {} to {}",
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end())
            ),
            Err(error) => error.to_string(),
        };
        self.push(
            Diagnostic::error(
                "bad-duration",
                text.span(),
                format!("`{key}` cannot be `{}`", text.get_ref()),
            )
            .label(label)
            .help("durations are written like `30s`, `5m` or `2h4m`"),
        );
        None
    }

    /// A size such as `256MB` in `range`, or `default` when absent.
    pub(super) fn size(
        &mut self,
        key: &str,
        text: Option<&Text>,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Option<u64> {
        let Some(text) = text else {
            return Some(default);
        };
        let label = match bytes(text.get_ref()) {
            Some(size) if range.contains(&size) => return Some(size),
            Some(_) => format!(
                "expected {} MB to {} MB",
                range.start() / 1_000_000,
                range.end() / 1_000_000
            ),
            None => String::from("expected a number and a unit"),
        };
        self.push(
            Diagnostic::error(
                "bad-size",
                text.span(),
                format!("`{key}` cannot be `{}`", text.get_ref()),
            )
            .label(label)
            .help("sizes are written like `64MB`, `256MiB` or `2GB`"),
        );
        None
    }

    /// The name of a listener, pool or node: it appears in commands, logs and metrics.
    pub(super) fn name(&mut self, text: &Text) -> Option<Text> {
        let name = text.get_ref();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(fits) {
            return Some(text.clone());
        }
        self.push(
            Diagnostic::error(
                "bad-name",
                text.span(),
                format!("`{name}` cannot be a name"),
            )
            .label(format!(
                "expected 1 to {NAME_MAX} letters, digits, `-`, `_` or `.`"
            ))
            .help(match name.len() {
                0 => String::from("give it one, like `web-1`"),
                1..=NAME_MAX => {
                    let fitting = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                    let name = name.chars().map(|c| if fitting(c) { c } else { '-' });
                    format!("write it like `{}`", name.collect::<String>())
                }
                _ => String::from("give it a shorter one"),
            }),
        );
        None
    }

    /// The name of a network interface.
    pub(super) fn interface(&mut self, text: &Text) -> Option<Text> {
        let name = text.get_ref();
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let label = if name.is_empty() {
            "it is empty"
        } else if name.len() > INTERFACE_NAME_MAX {
            "an interface name has at most 15 characters"
        } else if name == "." || name == ".." || name.contains(odd) {
            "no interface can be called that"
        } else {
            return Some(text.clone());
        };
        self.push(
            Diagnostic::error(
                "bad-interface",
                text.span(),
                format!("`{name}` is not the name of an interface"),
            )
            .label(label)
            .help("`ip -br link` lists this machine's interfaces"),
        );
        None
    }

    /// An address that a listener can have.
    pub(super) fn listener_address(&mut self, text: &Text) -> Option<Spanned<IpAddr>> {
        let written = text.get_ref();
        let (label, help) = match written.parse::<IpAddr>() {
            Err(_) => {
                let help = match written.parse::<SocketAddr>() {
                    Ok(socket) => format!("write `{}`; the port has its own key", socket.ip()),
                    Err(_) => String::from(
                        "write it like `203.0.113.7` or `2001:db8::7`, without prefix length",
                    ),
                };
                ("this is not an IP address", help)
            }
            Ok(address) if address.is_unspecified() => (
                "this stands for every address",
                String::from(
                    "leave `addresses` out to listen on all addresses of the public interfaces",
                ),
            ),
            Ok(address) if address.is_multicast() || address.to_string() == "255.255.255.255" => (
                "no TCP connection can have this address",
                String::from("use an address of a public interface"),
            ),
            Ok(IpAddr::V6(v6)) if v6.is_unicast_link_local() => (
                "a link-local address is not reachable from the internet",
                String::from("use a global address"),
            ),
            Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => (
                "an IPv4 address in IPv6 notation",
                format!("write `{}`", v6.to_canonical()),
            ),
            Ok(address) => return Some(Spanned::new(text.span(), address)),
        };
        self.push(
            Diagnostic::error(
                "bad-address",
                text.span(),
                format!("a listener cannot have the address `{written}`"),
            )
            .label(label)
            .help(help),
        );
        None
    }

    /// Address and port of a node.
    pub(super) fn node_address(&mut self, text: &Text) -> Option<Spanned<SocketAddr>> {
        let written = text.get_ref();
        let (label, help) = match written.parse::<SocketAddr>() {
            Err(_) => node_address_problem(written),
            Ok(socket) if socket.port() == 0 => (
                "port 0 cannot be connected to",
                format!("write `{}`", SocketAddr::new(socket.ip(), 443)),
            ),
            Ok(SocketAddr::V6(v6)) if v6.scope_id() != 0 || v6.ip().is_unicast_link_local() => (
                "a link-local address does not lead through a tunnel",
                String::from("use the node's address inside the tunnel"),
            ),
            Ok(SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_some() => (
                "an IPv4 address in IPv6 notation",
                format!(
                    "write `{}`",
                    SocketAddr::new(v6.ip().to_canonical(), v6.port())
                ),
            ),
            Ok(socket) if socket.ip().is_unspecified() || socket.ip().is_multicast() => (
                "no node can have this address",
                String::from("use the node's address inside the tunnel"),
            ),
            Ok(socket) => return Some(Spanned::new(text.span(), socket)),
        };
        self.push(
            Diagnostic::error(
                "bad-node-address",
                text.span(),
                format!("`{written}` is not the address and port of a node"),
            )
            .label(label)
            .help(help),
        );
        None
    }
}

/// `64MB` in bytes; `None` without a unit, which nobody could be sure of.
fn bytes(written: &str) -> Option<u64> {
    let digits = written.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = written.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `fd00::2:8443` is an IPv6 address, but likely one with a port behind it: its last part is decimal, and no port
/// stands elsewhere.
fn unbracketed(written: &str) -> Option<SocketAddr> {
    let address: std::net::Ipv6Addr = written.parse().ok()?;
    let (host, port) = written.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|_| port.len() >= 2)?;
    let host: std::net::Ipv6Addr = host.parse().ok()?;
    (host != address && port > 0).then(|| SocketAddrV6::new(host, port, 0, 0).into())
}

/// Why `written` is not `address:port`, and what it should be.
fn node_address_problem(written: &str) -> (&'static str, String) {
    if let Some(meant) = unbracketed(written) {
        return (
            "an IPv6 address with a port needs brackets",
            format!("write `{meant}`; if `{written}` is the whole address, `[{written}]:443`"),
        );
    }
    if let Ok(address) = written.parse::<IpAddr>() {
        return (
            "the port is missing",
            format!("write `{}`", SocketAddr::new(address, 443)),
        );
    }
    let Some((host, port)) = written.rsplit_once(':') else {
        return (
            "this is neither address nor port",
            String::from("write it like `10.0.0.2:443` or `[fd00::2]:443`"),
        );
    };
    let port_fits = port.parse::<u16>();
    match (host.parse::<IpAddr>(), port_fits) {
        (Ok(IpAddr::V6(v6)), Ok(port)) => (
            "an IPv6 address with a port needs brackets",
            format!("write `{}`", SocketAddrV6::new(v6, port, 0, 0)),
        ),
        (_, Err(_)) => (
            "the port is not a number from 1 to 65535",
            String::from("write it like `10.0.0.2:443` or `[fd00::2]:443`"),
        ),
        (_, Ok(port)) => (
            "the kernel cannot look names up",
            format!("write the node's IP address inside the tunnel, like `10.0.0.2:{port}`"),
        ),
    }
}
