//! `[metrics]`: where the metrics page is.

use std::net::{IpAddr, SocketAddr};

use super::Context;
use crate::config::diagnostic::Diagnostic;

/// `Some(None)` when no metrics are wanted, `None` when what is wanted cannot be understood.
pub(super) fn resolve(context: &mut Context<'_>) -> Option<Option<SocketAddr>> {
    let shape = context.shape;
    let Some(text) = shape
        .raw
        .metrics
        .as_ref()
        .and_then(|raw| raw.get_ref().listen.as_ref())
    else {
        return Some(None);
    };
    let written = text.get_ref();
    let Some(listen) = written
        .parse::<SocketAddr>()
        .ok()
        .filter(|listen| listen.port() != 0)
    else {
        context.push(
            Diagnostic::error(
                "bad-listen-address",
                text.span(),
                format!("metrics cannot be served at `{written}`"),
            )
            .label("this is not an address and a port")
            .help("write it like `127.0.0.1:9469` or `[::1]:9469`"),
        );
        return None;
    };
    if !is_inside(listen.ip()) {
        context.push(
            Diagnostic::warning(
                "public-metrics",
                text.span(),
                "everybody can read the metrics",
            )
            .label("neither loopback nor a private address")
            .help("use `127.0.0.1:9469`, or the machine's address inside a tunnel"),
        );
    }
    Some(Some(listen))
}

/// Loopback, private (RFC 1918, RFC 4193), carrier-grade (RFC 6598: Tailscale) or link-local.
fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside() {
        for inside in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "100.100.0.1",
            "fd7a::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "0.0.0.0",
            "::",
            "100.128.0.1",
            "198.51.100.1",
            "2001:db8::1",
        ] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }
}
