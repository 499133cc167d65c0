//! `[[route]]`: which name goes to which pool on which listener, and each name once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use foldhash::fast::RandomState;
use forwarder_common::name::NameError;
use serde_spanned::Spanned;

use super::context::{Context, Gaps};
use super::listener::protocol_word;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::model::{Listener, Pattern, Pool, Protocol, Route};
use crate::config::raw::{List, RawRoute, Text};
use crate::config::suggest;

pub(super) fn resolve(
    context: &mut Context<'_>,
    listeners: &Gaps<Listener>,
    pools: &Gaps<Pool>,
) -> Gaps<Route> {
    let shape = context.shape;
    let all = &shape.raw.route;
    let read: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(index, raw)| read(context, index, raw, listeners))
        .collect();
    let mut taken = Taken::default();
    let routes: Gaps<Route> = read
        .iter()
        .map(|own| own.route(context, &mut taken))
        .collect();
    // What a broken route would have used is unknown: no word about things that nobody uses.
    if routes.iter().all(Option::is_some) && !shape.lost("route", 0, "") {
        let routes: Vec<_> = routes.iter().flatten().collect();
        unused_listeners(context, &routes, listeners);
        unused_pools(context, &routes, pools);
        families_without_node(context, &routes, listeners, pools);
    }
    routes
}

/// A name, a gap if it is wrong, and its place.
type Placed = (Option<Pattern>, Span);
/// The names of each listener, and where they were written.
type Taken<'a> = HashMap<usize, HashMap<&'a str, &'a Span, RandomState>>;

/// What a route says, gaps where that is wrong.
struct Read {
    pool: Option<usize>,
    listeners: Option<Vec<usize>>,
    names: Option<Vec<Placed>>,
}

fn read(
    context: &mut Context<'_>,
    index: usize,
    raw: &Spanned<RawRoute>,
    listeners: &Gaps<Listener>,
) -> Read {
    let own = raw.get_ref();
    Read {
        pool: pool_index(context, index, own, &raw.span()),
        listeners: listener_indices(context, index, &own.listeners, listeners),
        names: names(context, index, raw),
    }
}

impl Read {
    fn route<'a>(&'a self, context: &mut Context<'_>, taken: &mut Taken<'a>) -> Option<Route> {
        if let (Some(names), Some(listeners)) = (&self.names, &self.listeners) {
            each_name_once(context, names, listeners, taken);
        }
        let names = self.names.as_ref()?.iter();
        Some(Route {
            names: names
                .map(|(pattern, _)| pattern.clone())
                .collect::<Option<_>>()?,
            pool: self.pool?,
            listeners: self.listeners.clone()?,
        })
    }
}

fn pool_index(
    context: &mut Context<'_>,
    index: usize,
    raw: &RawRoute,
    route: &Span,
) -> Option<usize> {
    let Some(wanted) = &raw.pool else {
        context.missing("route", index, "pool", route.clone(), "pool = \"k3s\"");
        return None;
    };
    let shape = context.shape;
    let known = shape.raw.pool.iter().enumerate();
    let known: Vec<(usize, &str)> = known
        .filter_map(|(at, pool)| Some((at, pool.get_ref().name.as_ref()?.get_ref().as_str())))
        .collect();
    if let Some((at, _)) = known.iter().find(|(_, name)| name == wanted.get_ref()) {
        return Some(*at);
    }
    let some_name_lost = (0..shape.raw.pool.len().max(1)).any(|at| shape.lost("pool", at, "name"));
    // One without a name has its own finding, and may be the one that is meant.
    if !some_name_lost && known.len() == shape.raw.pool.len() {
        let names = known.iter().map(|(_, name)| *name);
        context.push(unknown_reference("pool", wanted, names));
    }
    None
}

fn listener_indices(
    context: &mut Context<'_>,
    index: usize,
    list: &List<Text>,
    listeners: &Gaps<Listener>,
) -> Option<Vec<usize>> {
    let shape = context.shape;
    let Some(list) = list else {
        if shape.lost("route", index, "listeners") {
            return None;
        }
        let tls = listeners.iter().enumerate().filter(|(_, listener)| {
            listener
                .as_ref()
                .is_none_or(|listener| listener.protocol == Protocol::Tls)
        });
        return Some(tls.map(|(at, _)| at).collect());
    };
    if list.get_ref().is_empty() {
        if !shape.lost("route", index, "listeners") {
            context.push(
                Diagnostic::error("empty-list", list.span(), "`listeners` is empty")
                    .label("this route would hold nowhere")
                    .help(format!(
                        "leave `listeners` out for every {} listener",
                        protocol_word(Protocol::Tls)
                    )),
            );
        }
        return None;
    }
    let known = shape.raw.listener.iter().enumerate();
    let known: Vec<(usize, &str)> = known
        .filter_map(|(at, raw)| Some((at, raw.get_ref().name.as_ref()?.get_ref().as_str())))
        .collect();
    let some_name_lost =
        (0..shape.raw.listener.len().max(1)).any(|at| shape.lost("listener", at, "name"));
    let mut found = Vec::new();
    let mut whole = true;
    for wanted in list.get_ref() {
        let at = known.iter().find(|(_, name)| name == wanted.get_ref());
        match at {
            Some((at, _)) if found.contains(at) => context.push(
                Diagnostic::error(
                    "duplicate-reference",
                    wanted.span(),
                    format!("`{}` stands twice in `listeners`", wanted.get_ref()),
                )
                .help("remove one of them"),
            ),
            Some((at, _)) => found.push(*at),
            None => {
                whole = false;
                if !some_name_lost && known.len() == shape.raw.listener.len() {
                    let names = known.iter().map(|(_, name)| *name);
                    context.push(unknown_reference("listener", wanted, names));
                }
            }
        }
    }
    found.sort_unstable();
    whole.then_some(found)
}

fn unknown_reference<'a>(
    what: &'static str,
    wanted: &Text,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Diagnostic {
    let code = if what == "pool" {
        "unknown-pool"
    } else {
        "unknown-listener"
    };
    let finding = Diagnostic::error(
        code,
        wanted.span(),
        format!("there is no {what} `{}`", wanted.get_ref()),
    );
    let meant = suggest::closest(wanted.get_ref(), known.clone());
    match meant {
        Some(meant) => finding.suggest(Some(meant)),
        None if known.clone().next().is_none() => finding.help(format!(
            "add `[[{what}]]` with `name = \"{}\"`",
            wanted.get_ref()
        )),
        None => finding.help(format!("the {what}s are {}", suggest::alternatives(known))),
    }
}

/// The names of one route, each with its place; a name that is wrong leaves a gap.
fn names(
    context: &mut Context<'_>,
    index: usize,
    route: &Spanned<RawRoute>,
) -> Option<Vec<Placed>> {
    let raw = route.get_ref();
    let Some(list) = &raw.names else {
        let fix = "names = [\"www.example.org\"]";
        context.missing("route", index, "names", route.span(), fix);
        return None;
    };
    if list.get_ref().is_empty() {
        if !context.shape.lost("route", index, "names") {
            context.push(
                Diagnostic::error("empty-list", list.span(), "this route has no names")
                    .help("add at least one, like `names = [\"www.example.org\", \"*.apps.example.org\"]`"),
            );
        }
        return None;
    }
    let names = list.get_ref().iter().map(|text| {
        let parsed = Pattern::parse(text.get_ref());
        let pattern = parsed.map_err(|error| context.push(bad_name(text, &error)));
        (pattern.ok(), text.span())
    });
    Some(names.collect())
}

fn bad_name(text: &Text, why: &NameError) -> Diagnostic {
    let written = text.get_ref();
    let finding = Diagnostic::error(
        "bad-server-name",
        text.span(),
        format!("`{written}` is not a name that can be listed"),
    )
    .label(why.to_string());
    let bare = written
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let bare = bare
        .split(['/', ':'])
        .next()
        .unwrap_or(bare)
        .trim_end_matches('.');
    if written.parse::<IpAddr>().is_ok() {
        finding.help("clients send no server name when they connect to an address; list host names")
    } else if let Some(rest) = written
        .strip_prefix("*.")
        .map(|rest| rest.rsplit("*.").next().unwrap_or(rest))
        && Pattern::parse(rest).is_ok()
    {
        finding.help(format!("a wildcard covers any depth: write `*.{rest}`"))
    } else if written.starts_with('.') && Pattern::parse(&format!("*{written}")).is_ok() {
        finding.help(format!("write `*{written}`"))
    } else if !written.is_ascii() {
        finding.help("write an international name in its ASCII form, `xn--…`")
    } else if bare != written && Pattern::parse(bare).is_ok() {
        finding.help(format!("write `{bare}`"))
    } else {
        finding.help("names are written like `www.example.org` or `*.apps.example.org`")
    }
}

fn each_name_once<'a>(
    context: &mut Context<'_>,
    names: &'a [Placed],
    listeners: &[usize],
    taken: &mut Taken<'a>,
) {
    // Where each name that is listed again was listed first.
    let mut earlier = BTreeMap::new();
    for listener in listeners {
        let places = taken.entry(*listener).or_default();
        places.reserve(names.len());
        for (at, (pattern, span)) in names.iter().enumerate() {
            let Some(pattern) = pattern else { continue };
            match places.entry(pattern.as_str()) {
                Entry::Vacant(place) => {
                    place.insert(span);
                }
                Entry::Occupied(first) => {
                    earlier.insert(at, (pattern, span, (*first.get()).clone()));
                }
            }
        }
    }
    for (text, span, first) in earlier.into_values() {
        context.push(
                Diagnostic::error(
                    "duplicate-server-name",
                    span.clone(),
                    format!("`{text}` is listed twice on one listener"),
                )
                .label("again here")
                .related(first, "first here")
                .help("a name leads to one pool: remove one of them; upper and lower case count as the same"),
            );
    }
}

fn unused_listeners(context: &mut Context<'_>, routes: &[&Route], listeners: &Gaps<Listener>) {
    for (index, listener) in listeners.iter().enumerate() {
        let Some(listener) = listener else { continue };
        if !routes.iter().any(|route| route.listeners.contains(&index)) {
            context.push(
                Diagnostic::warning(
                    "listener-without-route",
                    listener.name.span(),
                    format!("listener `{}` has no route", listener.name.get_ref()),
                )
                .label("every connection to it will be refused")
                .help("add a `[[route]]`, or remove the listener"),
            );
        }
    }
}

fn unused_pools(context: &mut Context<'_>, routes: &[&Route], pools: &Gaps<Pool>) {
    for (index, pool) in pools.iter().enumerate() {
        let Some(pool) = pool else { continue };
        if !routes.iter().any(|route| route.pool == index) {
            context.push(
                Diagnostic::warning(
                    "unused-pool",
                    pool.name.span(),
                    format!("no route leads to pool `{}`", pool.name.get_ref()),
                )
                .help("add a `[[route]]` with it, or remove the pool"),
            );
        }
    }
}

/// A client of one family is never connected to a node of the other: say so for explicit addresses.
fn families_without_node(
    context: &mut Context<'_>,
    routes: &[&Route],
    listeners: &Gaps<Listener>,
    pools: &Gaps<Pool>,
) {
    for (at, pool) in pools.iter().enumerate() {
        let Some(pool) = pool else { continue };
        let used = listeners.iter().enumerate().filter(|(listener, _)| {
            let leads = |route: &&&Route| route.pool == at && route.listeners.contains(listener);
            routes.iter().any(|route| leads(&route))
        });
        for (_, listener) in used {
            let Some(Listener {
                name,
                addresses: Some(addresses),
                ..
            }) = listener
            else {
                continue;
            };
            for (family, is_family) in FAMILIES {
                let Some(address) = addresses.iter().find(|a| is_family(a.get_ref())) else {
                    continue;
                };
                if pool
                    .nodes
                    .iter()
                    .any(|node| is_family(&node.address.get_ref().ip()))
                {
                    continue;
                }
                context.push(
                    Diagnostic::warning(
                        "family-without-node",
                        pool.name.span(),
                        format!(
                            "{family} clients of listener `{}` will be refused by pool `{}`",
                            name.get_ref(),
                            pool.name.get_ref()
                        ),
                    )
                    .label(format!("it has no {family} node"))
                    .related(address.span(), format!("{family} clients come here"))
                    .help(format!(
                        "add the nodes' {family} addresses to the pool, or remove this one from the listener"
                    )),
                );
            }
        }
    }
}

type IsFamily = fn(&IpAddr) -> bool;

const FAMILIES: [(&str, IsFamily); 2] = [("IPv4", IpAddr::is_ipv4), ("IPv6", IpAddr::is_ipv6)];
