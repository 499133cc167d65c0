//! `[metrics]`: where the metrics page is, and how much stands on it.

use std::net::{IpAddr, SocketAddr};

use super::context::Context;
use crate::config::diagnostic::Diagnostic;
use crate::config::model::Metrics;
use crate::config::raw::{RawMetrics, Text};

/// Thirteen series each: about what a Prometheus on a small machine takes without being asked.
const MAX_TARGETS: u32 = 2_000;
const MAX_TARGETS_MAX: u32 = 1_000_000;

pub(super) fn resolve(context: &mut Context<'_>) -> Option<Metrics> {
    let absent = RawMetrics::default();
    let shape = context.shape;
    let raw = shape.raw.metrics.as_ref();
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let listen = match &raw.listen {
        Some(text) => listen(context, text).map(Some),
        None => Some(None),
    };
    let max_targets = context.number(
        "max_targets",
        raw.max_targets.as_ref(),
        1..=MAX_TARGETS_MAX,
        MAX_TARGETS,
    );
    Some(Metrics {
        listen: listen?,
        max_targets: max_targets?,
    })
}

fn listen(context: &mut Context<'_>, text: &Text) -> Option<SocketAddr> {
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
    Some(listen)
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
