//! `[[pool]]`: nodes, and how they are reached.

use std::time::Duration;

use serde_spanned::Spanned;

use super::context::{Context, Gaps, unique_names};
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::model::{Balance, ClientAddress, Node, NodeState, OnDown, Pool, WhenEmpty};
use crate::config::raw::{RawNode, RawPool, Text};

/// Largest weight; more would not show in a Maglev table.
const WEIGHT_MAX: u32 = 1_000;

pub(super) fn resolve(context: &mut Context<'_>) -> Gaps<Pool> {
    let shape = context.shape;
    let all = &shape.raw.pool;
    unique_names(
        context,
        "pool",
        all.iter().filter_map(|raw| raw.get_ref().name.as_ref()),
    );
    all.iter()
        .enumerate()
        .map(|(index, raw)| one(context, index, raw))
        .collect()
}

fn one(context: &mut Context<'_>, index: usize, raw: &Spanned<RawPool>) -> Option<Pool> {
    let span = raw.span();
    let raw = raw.get_ref();
    let name = match &raw.name {
        Some(name) => context.name(name),
        None => {
            context.missing("pool", index, "name", span.clone(), "name = \"k3s\"");
            None
        }
    };
    let client_address = client_address(context, index, raw, &span);
    let balance = context.keyword("balance", raw.balance.as_ref(), Balance::Source);
    let health = super::health::resolve(context, raw, client_address);
    let slow_start = context.duration(
        "slow_start",
        raw.slow_start.as_ref(),
        Duration::ZERO..=Duration::from_secs(3_600),
        Duration::ZERO,
    );
    let when_empty = context.keyword("when_empty", raw.when_empty.as_ref(), WhenEmpty::TryAll);
    let on_down = context.keyword("on_down", raw.on_down.as_ref(), OnDown::Keep);
    let nodes = nodes(context, index, raw, &span);
    Some(Pool {
        name: name?,
        client_address: client_address?,
        balance: balance?,
        health: health?,
        slow_start: slow_start?,
        when_empty: when_empty?,
        on_down: on_down?,
        nodes: nodes?,
    })
}

/// There is no default: each of the three needs something else of the nodes, and fails in silence without it.
fn client_address(
    context: &mut Context<'_>,
    index: usize,
    raw: &RawPool,
    pool: &Span,
) -> Option<ClientAddress> {
    if raw.client_address.is_some() {
        let written = raw.client_address.as_ref();
        // The default is of no use: the key is there.
        return context.keyword("client_address", written, ClientAddress::Masquerade);
    }
    if !context.shape.lost("pool", index, "client_address") {
        let at = raw
            .name
            .as_ref()
            .map_or_else(|| pool.clone(), Spanned::span);
        context.push(
            Diagnostic::error("missing-key", at, "[[pool]] has no `client_address`")
                .label("how do its nodes learn clients' addresses?")
                .help("add `client_address = \"proxy-v2\"`: a PROXY protocol header comes first; the nodes' server must expect it")
                .help("or `client_address = \"transparent\"`: packets keep clients' addresses; the nodes must route answers back through the tunnel, which Tailscale cannot (docs/node-transparent.md)")
                .help("or `client_address = \"masquerade\"`: they do not learn them, and nothing has to be done on them"),
        );
    }
    None
}

fn nodes(context: &mut Context<'_>, index: usize, raw: &RawPool, pool: &Span) -> Option<Vec<Node>> {
    let Some(list) = &raw.nodes else {
        let fix = "nodes = [\"10.0.0.2:443\"]";
        context.missing("pool", index, "nodes", pool.clone(), fix);
        return None;
    };
    if list.get_ref().is_empty() {
        if !context.shape.lost("pool", index, "nodes") {
            context.push(
                Diagnostic::error("no-nodes", list.span(), "this pool has no nodes")
                    .help("add at least one, like `nodes = [\"10.0.0.2:443\"]`"),
            );
        }
        return None;
    }
    let resolved: Vec<_> = list
        .get_ref()
        .iter()
        .map(|raw| node(context, raw))
        .collect();
    distinct(context, &resolved);
    let nodes: Option<Vec<_>> = resolved.into_iter().collect();
    Some(nodes?.into_iter().map(|(node, _)| node).collect())
}

/// The node and the place of its name.
fn node(context: &mut Context<'_>, raw: &Spanned<RawNode>) -> Option<(Node, Span)> {
    let table = match raw.get_ref() {
        RawNode::Address(text) => {
            let address = context.node_address(&Text::new(raw.span(), text.clone()))?;
            let name = address.get_ref().to_string();
            let weight = 1;
            return Some((
                Node {
                    name,
                    address,
                    weight,
                    state: NodeState::Ready,
                },
                raw.span(),
            ));
        }
        RawNode::Table(table) => table,
    };
    let weight = context.number("weight", table.weight.as_ref(), 1..=WEIGHT_MAX, 1);
    let name = table.name.as_ref().map(|name| context.name(name));
    let Some(address) = &table.address else {
        context.push(
            Diagnostic::error("missing-key", raw.span(), "this node has no `address`")
                .help("add `address = \"10.0.0.2:443\"`"),
        );
        return None;
    };
    let address = context.node_address(address)?;
    let (name, span) = match name {
        Some(name) => {
            let name = name?;
            (name.get_ref().clone(), name.span())
        }
        None => (address.get_ref().to_string(), address.span()),
    };
    let weight = u16::try_from(weight?).ok()?;
    Some((
        Node {
            name,
            address,
            weight,
            state: NodeState::Ready,
        },
        span,
    ))
}

fn distinct(context: &mut Context<'_>, nodes: &[Option<(Node, Span)>]) {
    for (index, entry) in nodes.iter().enumerate() {
        let Some((node, name_span)) = entry else {
            continue;
        };
        for (earlier, earlier_name) in nodes[..index].iter().flatten() {
            let finding = if earlier.address == node.address {
                Diagnostic::error(
                    "duplicate-node",
                    node.address.span(),
                    format!("`{}` stands twice in this pool", node.address.get_ref()),
                )
                .related(earlier.address.span(), "first here")
                .help("list it once; for a larger share give it a `weight`")
            } else if earlier.name.eq_ignore_ascii_case(&node.name) {
                Diagnostic::error(
                    "duplicate-name",
                    name_span.clone(),
                    format!("two nodes of this pool are called `{}`", node.name),
                )
                .related(earlier_name.clone(), "first here")
                .help("give one of them another name; upper and lower case count as the same")
            } else {
                continue;
            };
            context.push(finding.label("again here"));
            break;
        }
    }
}
