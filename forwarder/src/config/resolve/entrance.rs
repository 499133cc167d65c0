//! `[entrance]`: interfaces, sizes and times.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_spanned::Spanned;

use super::context::Context;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::model::{Entrance, Xdp};
use crate::config::raw::{List, RawEntrance, Text};
use crate::instance::paths::DEFAULT_BPFFS;

const DEFAULT_MAX_FLOWS: u32 = 65_536;
const DEFAULT_HELLO_BUFFERS: u32 = 256;
/// What a client takes that has to send each segment three times.
const DEFAULT_HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the usual `net.ipv4.ip_local_port_range`, so that the host's own connections keep theirs.
const DEFAULT_SOURCE_PORTS: RangeInclusive<u16> = 1_024..=32_767;
/// RFC 5382, REQ-5: not less than 2 hours 4 minutes.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
const DEFAULT_RST_RATE: u32 = 1_000;
/// Far above what clients of a home cluster do, far below what a processor can answer.
const DEFAULT_XDP_ABOVE: u32 = 10_000;
const DEFAULT_XDP_CALM: Duration = Duration::from_secs(60);
/// Fewer would leave one client's page load without ports.
const LEAST_SOURCE_PORTS: u32 = 64;

pub(super) fn resolve(context: &mut Context<'_>) -> Option<Entrance> {
    let shape = context.shape;
    let Some(raw) = &shape.raw.entrance else {
        if !shape.lost("entrance", 0, "") {
            context.push(
                Diagnostic::error("missing-section", 0..0, "there is no [entrance]")
                    .help("add `[entrance]` with `public = [\"eth0\"]` and `tunnels = [\"wg0\"]`"),
            );
        }
        return None;
    };
    let span = raw.span();
    let raw = raw.get_ref();

    let public = interfaces(context, "public", &raw.public, &span, "public = [\"eth0\"]");
    let tunnels = interfaces(
        context,
        "tunnels",
        &raw.tunnels,
        &span,
        "tunnels = [\"wg0\"]",
    );
    if let (Some(public), Some(tunnels)) = (&public, &tunnels) {
        no_interface_on_both_sides(context, public, tunnels);
    }
    let sizes = sizes(context, raw);
    let max_flows_per_source = context.number(
        "max_flows_per_source",
        raw.max_flows_per_source.as_ref(),
        0..=4_194_304,
        0,
    );
    let source_ports = source_ports(context, raw.source_ports.as_ref(), &span);
    let bpffs = bpffs(context, raw.bpffs.as_ref());
    let idle_timeout = idle_timeout(context, raw.idle_timeout.as_ref());
    let hello_timeout = context.duration(
        "hello_timeout",
        raw.hello_timeout.as_ref(),
        Duration::from_secs(1)..=Duration::from_secs(120),
        DEFAULT_HELLO_TIMEOUT,
    );
    let xdp = context.keyword("xdp", raw.xdp.as_ref(), Xdp::Auto);
    let xdp_above = context.number(
        "xdp_above",
        raw.xdp_above.as_ref(),
        10..=100_000_000,
        DEFAULT_XDP_ABOVE,
    );
    let xdp_calm = context.duration(
        "xdp_calm",
        raw.xdp_calm.as_ref(),
        Duration::from_secs(1)..=Duration::from_secs(24 * 3_600),
        DEFAULT_XDP_CALM,
    );
    let (max_flows, hello_buffers, rst_rate) = sizes?;
    Some(Entrance {
        public: public?,
        tunnels: tunnels?,
        max_flows,
        max_flows_per_source: max_flows_per_source?,
        hello_buffers,
        hello_timeout: hello_timeout?,
        source_ports: source_ports?,
        bpffs: bpffs?,
        idle_timeout: idle_timeout?,
        rst_rate,
        watch: raw.watch.as_ref().is_some_and(|watch| *watch.get_ref()),
        xdp: xdp?,
        xdp_veth: raw.xdp_veth.as_ref().is_some_and(|veth| *veth.get_ref()),
        xdp_above: xdp_above?,
        xdp_calm: xdp_calm?,
    })
}

fn sizes(context: &mut Context<'_>, raw: &RawEntrance) -> Option<(u32, u32, u32)> {
    let max_flows = context.number(
        "max_flows",
        raw.max_flows.as_ref(),
        64..=4_194_304,
        DEFAULT_MAX_FLOWS,
    );
    let hello_buffers = context.number(
        "hello_buffers",
        raw.hello_buffers.as_ref(),
        16..=65_536,
        DEFAULT_HELLO_BUFFERS,
    );
    let rst_rate = context.number(
        "rst_rate",
        raw.rst_rate.as_ref(),
        0..=1_000_000,
        DEFAULT_RST_RATE,
    );
    Some((max_flows?, hello_buffers?, rst_rate?))
}

fn interfaces(
    context: &mut Context<'_>,
    key: &str,
    list: &List<Text>,
    section: &Span,
    fix: &str,
) -> Option<Vec<Text>> {
    let Some(list) = list else {
        context.missing("entrance", 0, key, section.clone(), fix);
        return None;
    };
    if list.get_ref().is_empty() && !context.shape.lost("entrance", 0, key) {
        context.push(
            Diagnostic::error(
                "empty-list",
                list.span(),
                format!("`{key}` names no interface"),
            )
            .help(format!("name at least one, like `{fix}`")),
        );
        return None;
    }
    let mut found: Vec<Text> = Vec::new();
    let mut whole = true;
    for text in list.get_ref() {
        let Some(interface) = context.interface(text) else {
            whole = false;
            continue;
        };
        match found.iter().find(|earlier| **earlier == interface) {
            Some(first) => context.push(
                Diagnostic::error(
                    "duplicate-interface",
                    interface.span(),
                    format!("`{}` stands twice in `{key}`", interface.get_ref()),
                )
                .label("again here")
                .related(first.span(), "first here")
                .help("remove one of them"),
            ),
            None => found.push(interface),
        }
    }
    whole.then_some(found)
}

fn no_interface_on_both_sides(context: &mut Context<'_>, public: &[Text], tunnels: &[Text]) {
    for tunnel in tunnels {
        if let Some(same) = public.iter().find(|public| *public == tunnel) {
            context.push(
                Diagnostic::error(
                    "both-sides",
                    tunnel.span(),
                    format!("`{}` is both public and a tunnel", tunnel.get_ref()),
                )
                .label("leads to nodes")
                .related(same.span(), "faces the internet")
                .help("an interface is on one side only; nodes are reached through another one, like `wg0`"),
            );
        }
    }
}

fn source_ports(
    context: &mut Context<'_>,
    text: Option<&Text>,
    section: &Span,
) -> Option<Spanned<RangeInclusive<u16>>> {
    let Some(text) = text else {
        return Some(Spanned::new(section.clone(), DEFAULT_SOURCE_PORTS));
    };
    let range = text.get_ref().split_once('-').and_then(|(first, last)| {
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
    });
    let label = match range {
        None => String::from("expected `first-last`, like `1024-32767`"),
        Some(range) if *range.start() < 1_024 => {
            String::from("ports below 1024 belong to the machine's own services")
        }
        Some(range) if range.is_empty() => String::from("the first port is above the last"),
        Some(range) if range.len() < LEAST_SOURCE_PORTS as usize => {
            format!("at least {LEAST_SOURCE_PORTS} ports are needed")
        }
        Some(range) => return Some(Spanned::new(text.span(), range)),
    };
    context.push(
        Diagnostic::error(
            "bad-port-range",
            text.span(),
            format!("`source_ports` cannot be `{}`", text.get_ref()),
        )
        .label(label)
        .help("write it like `source_ports = \"1024-32767\"`, outside `sysctl net.ipv4.ip_local_port_range`"),
    );
    None
}

fn bpffs(context: &mut Context<'_>, text: Option<&Text>) -> Option<PathBuf> {
    let Some(text) = text else {
        return Some(PathBuf::from(DEFAULT_BPFFS));
    };
    let path = PathBuf::from(text.get_ref());
    if path.is_absolute() && path.parent().is_some() {
        return Some(path);
    }
    context.push(
        Diagnostic::error(
            "bad-path",
            text.span(),
            format!("`bpffs` cannot be `{}`", text.get_ref()),
        )
        .label("expected an absolute path to a directory")
        .help(format!("the default is `{DEFAULT_BPFFS}`")),
    );
    None
}

fn idle_timeout(context: &mut Context<'_>, text: Option<&Text>) -> Option<Duration> {
    let range = Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600);
    let timeout = context.duration("idle_timeout", text, range, DEFAULT_IDLE_TIMEOUT)?;
    if let Some(text) = text
        && timeout < DEFAULT_IDLE_TIMEOUT
    {
        context.push(
            Diagnostic::warning(
                "short-idle-timeout",
                text.span(),
                "connections that are merely quiet will be cut",
            )
            .label("shorter than the TCP keep-alive of most systems (2 h)")
            .help("RFC 5382 asks for `2h4m` or more, which is the default"),
        );
    }
    Some(timeout)
}
