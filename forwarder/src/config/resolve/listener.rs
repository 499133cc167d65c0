//! `[[listener]]`: where clients connect, and that no two listeners claim the same place.

use std::net::IpAddr;

use serde_spanned::Spanned;

use super::context::{Context, Gaps, unique_names};
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{Keyword, Listener, OnRefuse, Protocol};
use crate::config::raw::{List, Number, RawListener, Text};

/// The parts that decide whether two listeners overlap, known even when other parts are wrong.
struct Claim<'a> {
    label: String,
    port: (u16, &'a Number),
    addresses: Option<Vec<Spanned<IpAddr>>>,
}

pub(super) fn resolve(context: &mut Context<'_>) -> Gaps<Listener> {
    let shape = context.shape;
    let all = &shape.raw.listener;
    unique_names(
        context,
        "listener",
        all.iter().filter_map(|raw| raw.get_ref().name.as_ref()),
    );
    let mut claims = Vec::new();
    let listeners = all
        .iter()
        .enumerate()
        .map(|(index, raw)| one(context, index, raw, &mut claims))
        .collect();
    overlaps(context, &claims);
    if all.is_empty() && !shape.lost("listener", 0, "") {
        context.push(
            Diagnostic::warning(
                "no-listener",
                0..0,
                "there is no [[listener]]: nothing is forwarded",
            )
            .help(
                "add `[[listener]]` with `name = \"https\"`, `protocol = \"tls\"` and `port = 443`",
            ),
        );
    }
    listeners
}

fn one<'a>(
    context: &mut Context<'_>,
    index: usize,
    raw: &'a Spanned<RawListener>,
    claims: &mut Vec<Claim<'a>>,
) -> Option<Listener> {
    let span = raw.span();
    let raw = raw.get_ref();
    let name = match &raw.name {
        Some(name) => context.name(name),
        None => {
            context.missing("listener", index, "name", span.clone(), "name = \"https\"");
            None
        }
    };
    if raw.protocol.is_none() {
        context.missing(
            "listener",
            index,
            "protocol",
            span.clone(),
            "protocol = \"tls\"",
        );
    }
    let protocol = context.keyword("protocol", raw.protocol.as_ref(), Protocol::Tls);
    let port = match &raw.port {
        Some(port) => context.number("port", Some(port), 1..=65_535, 0),
        None => {
            context.missing("listener", index, "port", span, "port = 443");
            None
        }
    };
    let port = port.and_then(|port| u16::try_from(port).ok());
    let on_refuse = context.keyword("on_refuse", raw.on_refuse.as_ref(), OnRefuse::Alert);
    let addresses = addresses(context, index, &raw.addresses);
    if let (Some(port), Some(written), Some(addresses)) = (port, &raw.port, &addresses) {
        let label = raw.name.as_ref().map_or("listener", |name| name.get_ref());
        claims.push(Claim {
            label: label.to_owned(),
            port: (port, written),
            addresses: addresses.clone(),
        });
    }
    Some(Listener {
        name: name?,
        protocol: protocol?,
        addresses: addresses?,
        port: port?,
        on_refuse: on_refuse?,
    })
}

/// `None` if something is wrong, `Some(None)` if all addresses are meant.
#[expect(
    clippy::option_option,
    reason = "the outer level is whether the list resolved"
)]
fn addresses(
    context: &mut Context<'_>,
    index: usize,
    list: &List<Text>,
) -> Option<Option<Vec<Spanned<IpAddr>>>> {
    let Some(list) = list else {
        return if context.shape.lost("listener", index, "addresses") {
            None
        } else {
            Some(None)
        };
    };
    if list.get_ref().is_empty() && !context.shape.lost("listener", index, "addresses") {
        context.push(
            Diagnostic::error("empty-list", list.span(), "`addresses` is empty")
                .label("this listener would have no address")
                .help("leave `addresses` out to listen on all addresses of the public interfaces"),
        );
        return None;
    }
    let mut found: Vec<Spanned<IpAddr>> = Vec::new();
    let mut whole = true;
    for text in list.get_ref() {
        let Some(address) = context.listener_address(text) else {
            whole = false;
            continue;
        };
        match found.iter().find(|earlier| **earlier == address) {
            Some(first) => context.push(
                Diagnostic::error(
                    "duplicate-address",
                    address.span(),
                    format!("`{}` stands twice in `addresses`", address.get_ref()),
                )
                .label("again here")
                .related(first.span(), "first here")
                .help("remove one of them"),
            ),
            None => found.push(address),
        }
    }
    whole.then_some(Some(found))
}

fn overlaps(context: &mut Context<'_>, claims: &[Claim<'_>]) {
    for (index, later) in claims.iter().enumerate() {
        for earlier in &claims[..index] {
            if earlier.port.0 == later.port.0
                && let Some(finding) = overlap(earlier, later)
            {
                context.push(finding);
                // One word per listener; the others follow from the same fix.
                break;
            }
        }
    }
}

fn overlap(earlier: &Claim<'_>, later: &Claim<'_>) -> Option<Diagnostic> {
    let port = later.port.0;
    let title = format!(
        "listeners `{}` and `{}` overlap on port {port}",
        earlier.label, later.label
    );
    let (Some(first), Some(second)) = (&earlier.addresses, &later.addresses) else {
        return Some(
            Diagnostic::error("overlapping-listeners", later.port.1.span(), title)
                .label(said(later))
                .related(earlier.port.1.span(), said(earlier))
                .help("give each of them its own `addresses`, or another port, or make them one listener"),
        );
    };
    let (address, same) = second.iter().find_map(|address| {
        let same = first.iter().find(|earlier| *earlier == address)?;
        Some((address, same))
    })?;
    Some(
        Diagnostic::error("overlapping-listeners", address.span(), title)
            .label(format!("`{}` is claimed again", address.get_ref()))
            .related(same.span(), "claimed here")
            .help("an address and port belong to one listener: remove one, or use another port"),
    )
}

fn said(claim: &Claim<'_>) -> &'static str {
    match claim.addresses {
        None => "on all public addresses",
        Some(_) => "on its own addresses",
    }
}

/// Word of the protocol, for messages.
pub(super) fn protocol_word(protocol: Protocol) -> &'static str {
    let found = Protocol::WORDS.iter().find(|(_, value)| *value == protocol);
    found.map_or("tls", |(word, _)| *word)
}
