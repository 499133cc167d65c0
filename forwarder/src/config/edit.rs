//! Edits of a configuration at run time: a route more or less, a node that drains, another weight.
//!
//! An edit is applied to the configuration in use and, if it is to last, written into the file by
//! [`super::persist`]. It is applied whole or not at all.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use forwarder_common::name::NameError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::difference::word;
use super::model::{Config, Node, NodeState, Pattern, Route};
use super::suggest;

/// Largest weight of a node.
pub const WEIGHT_MAX: u16 = 1_000;

/// One edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "kebab-case")]
pub enum Edit {
    /// Names lead to a pool.
    AddRoute {
        /// The names.
        names: Vec<String>,
        /// The pool.
        pool: String,
        /// The listeners; all when absent.
        listeners: Option<Vec<String>>,
    },
    /// Names lead nowhere any more.
    RemoveNames {
        /// The names, as listed.
        names: Vec<String>,
    },
    /// Nodes take new flows or do not.
    State {
        /// Name, address or address and port.
        node: String,
        /// Whether they do.
        state: NodeState,
    },
    /// Nodes get another share.
    Weight {
        /// Name, address or address and port.
        node: String,
        /// Only in this pool.
        pool: Option<String>,
        /// The share; 0 is none.
        weight: u16,
    },
}

/// Why an edit cannot be applied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EditError {
    /// There is no such thing.
    #[error("there is no {what} `{name}`")]
    Unknown {
        /// Of what sort.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What may have been meant.
        closest: Option<String>,
    },
    /// A name cannot be listed.
    #[error("`{name}` is not a name that can be listed: {why}")]
    BadName {
        /// The name.
        name: String,
        /// Why.
        why: NameError,
    },
    /// A name is listed already.
    #[error("`{name}` is listed already and leads to pool `{pool}`")]
    Listed {
        /// The name.
        name: String,
        /// Where it leads.
        pool: String,
    },
    /// A list is empty.
    #[error("no {0} given")]
    Empty(&'static str),
    /// A weight is out of range.
    #[error("a weight is a number from 0 to {WEIGHT_MAX}")]
    Weight,
}

impl fmt::Display for Edit {
    /// The command that makes it, without `forwarder`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddRoute {
                names,
                pool,
                listeners,
            } => {
                write!(f, "route add {} --pool {pool}", names.join(" "))?;
                let listeners = listeners.iter().flatten();
                listeners
                    .into_iter()
                    .try_for_each(|own| write!(f, " --listener {own}"))
            }
            Self::RemoveNames { names } => write!(f, "route rm {}", names.join(" ")),
            Self::State { node, state } => write!(f, "node {} {node}", word(*state)),
            Self::Weight { node, pool, weight } => {
                write!(f, "node weight {node} {weight}")?;
                pool.iter().try_for_each(|own| write!(f, " --pool {own}"))
            }
        }
    }
}

impl EditError {
    /// What to do about it.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Unknown {
                closest: Some(name),
                ..
            } => Some(format!("did you mean `{name}`?")),
            Self::Unknown { what, .. } => {
                Some(format!("`forwarder {what} ls` shows what there is"))
            }
            Self::BadName { .. } => Some(String::from(
                "names are written like `www.example.org` or `*.apps.example.org`",
            )),
            Self::Listed { name, .. } => {
                Some(format!("`forwarder route rm {name}` removes it first"))
            }
            Self::Empty(what) => Some(format!("give at least one {what}")),
            Self::Weight => None,
        }
    }
}

impl Edit {
    /// The names that it is about, if it is about names.
    pub fn names(&self) -> Option<&[String]> {
        match self {
            Self::AddRoute { names, .. } | Self::RemoveNames { names } => Some(names),
            Self::State { .. } | Self::Weight { .. } => None,
        }
    }

    /// Applies it to a copy of `config`.
    pub fn apply(&self, config: &Config) -> Result<Config, EditError> {
        self.apply_knowing(config, |_| true)
    }

    /// The same, where it is known of some names that `config` does not list them: then they are not looked for.
    pub fn apply_knowing(
        &self,
        config: &Config,
        may_be_listed: impl Fn(&Pattern) -> bool,
    ) -> Result<Config, EditError> {
        let mut new = config.clone();
        match self {
            Self::AddRoute {
                names,
                pool,
                listeners,
            } => {
                add_route(&mut new, names, pool, listeners.as_deref(), may_be_listed)?;
            }
            Self::RemoveNames { names } => remove_names(&mut new, names)?,
            Self::State { node, state } => {
                for node in selected(&mut new, node, None)? {
                    node.state = *state;
                }
            }
            Self::Weight { node, pool, weight } => {
                if *weight > WEIGHT_MAX {
                    return Err(EditError::Weight);
                }
                for node in selected(&mut new, node, pool.as_deref())? {
                    node.weight = *weight;
                }
            }
        }
        Ok(new)
    }
}

/// Parses names, each once.
pub fn patterns(names: &[String]) -> Result<Vec<Pattern>, EditError> {
    let mut patterns = Vec::new();
    let mut known = HashSet::new();
    for name in names {
        let pattern = Pattern::parse(name).map_err(|why| EditError::BadName {
            name: name.clone(),
            why,
        })?;
        if known.insert(pattern.clone()) {
            patterns.push(pattern);
        }
    }
    if patterns.is_empty() {
        return Err(EditError::Empty("name"));
    }
    Ok(patterns)
}

fn add_route(
    config: &mut Config,
    names: &[String],
    pool: &str,
    listeners: Option<&[String]>,
    may_be_listed: impl Fn(&Pattern) -> bool,
) -> Result<(), EditError> {
    let names = patterns(names)?;
    let pools = config.pools.iter().map(|own| own.name.get_ref().as_str());
    let pool = position("pool", pool, pools)?;
    let all = || {
        config
            .listeners
            .iter()
            .map(|own| own.name.get_ref().as_str())
    };
    let mut on: Vec<usize> = match listeners {
        None => (0..config.listeners.len()).collect(),
        Some([]) => return Err(EditError::Empty("listener")),
        Some(listed) => listed
            .iter()
            .map(|name| position("listener", name, all()))
            .collect::<Result<_, _>>()?,
    };
    on.sort_unstable();
    on.dedup();
    let doubtful: Vec<_> = names.iter().filter(|name| may_be_listed(name)).collect();
    let shares = |route: &&Arc<Route>| route.listeners.iter().any(|at| on.contains(at));
    let routes = config.routes.iter().filter(|_| !doubtful.is_empty());
    for route in routes.filter(shares) {
        if let Some(name) = doubtful.iter().find(|name| route.names.contains(name)) {
            return Err(EditError::Listed {
                name: name.to_string(),
                pool: config.pools[route.pool].name.get_ref().clone(),
            });
        }
    }
    config.routes.push(Arc::new(Route {
        names,
        pool,
        listeners: on,
    }));
    Ok(())
}

fn remove_names(config: &mut Config, names: &[String]) -> Result<(), EditError> {
    for name in patterns(names)? {
        let lists = |route: &Arc<Route>| route.names.contains(&name);
        let listing: Vec<usize> = (0..config.routes.len())
            .filter(|at| lists(&config.routes[*at]))
            .collect();
        if listing.is_empty() {
            let text = name.to_string();
            let known: Vec<_> = config
                .routes
                .iter()
                .flat_map(|route| &route.names)
                .map(ToString::to_string)
                .collect();
            let closest = suggest::closest(&text, known.iter().map(String::as_str));
            return Err(EditError::Unknown {
                what: "route",
                closest: closest.map(str::to_owned),
                name: text,
            });
        }
        for at in listing.into_iter().rev() {
            let route = &config.routes[at];
            let names: Vec<_> = route
                .names
                .iter()
                .filter(|own| **own != name)
                .cloned()
                .collect();
            if names.is_empty() {
                config.routes.remove(at);
            } else {
                let listeners = route.listeners.clone();
                let pool = route.pool;
                config.routes[at] = Arc::new(Route {
                    names,
                    pool,
                    listeners,
                });
            }
        }
    }
    Ok(())
}

fn position<'a>(
    what: &'static str,
    name: &str,
    mut known: impl Iterator<Item = &'a str> + Clone,
) -> Result<usize, EditError> {
    let all = known.clone();
    known
        .position(|own| own == name)
        .ok_or_else(|| EditError::Unknown {
            what,
            name: name.to_owned(),
            closest: suggest::closest(name, all).map(str::to_owned),
        })
}

/// Whether `selector` means a node: by its name, its address, or its address and port.
pub fn selects(selector: &str, name: &str, address: SocketAddr) -> bool {
    selector == name
        || selector.parse::<SocketAddr>() == Ok(address)
        || selector.parse::<IpAddr>() == Ok(address.ip())
}

/// Whether there are such a node and such a listed name. A filter that finds nothing is no mistake by itself, but
/// a misspelt one is.
pub fn is_known(config: &Config, node: Option<&str>, name: Option<&str>) -> Result<(), EditError> {
    let unknown = |what, name: &str, known: &[String]| EditError::Unknown {
        what,
        name: name.to_owned(),
        closest: suggest::closest(name, known.iter().map(String::as_str)).map(str::to_owned),
    };
    if let Some(selector) = node {
        let nodes = || config.pools.iter().flat_map(|pool| &pool.nodes);
        if !nodes().any(|node| selects(selector, &node.name, *node.address.get_ref())) {
            let names: Vec<_> = nodes().map(|node| node.name.clone()).collect();
            return Err(unknown("node", selector, &names));
        }
    }
    if let Some(name) = name {
        let listed = config.routes.iter().flat_map(|route| &route.names);
        let listed: Vec<_> = listed.map(ToString::to_string).collect();
        if !listed.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return Err(unknown("route", name, &listed));
        }
    }
    Ok(())
}

fn selected<'a>(
    config: &'a mut Config,
    selector: &str,
    pool: Option<&str>,
) -> Result<Vec<&'a mut Node>, EditError> {
    if let Some(pool) = pool {
        let pools = config.pools.iter().map(|own| own.name.get_ref().as_str());
        position("pool", pool, pools)?;
    }
    let nodes = config.pools.iter().flat_map(|pool| &pool.nodes);
    let names: Vec<_> = nodes.map(|node| node.name.clone()).collect();
    let pools = config
        .pools
        .iter_mut()
        .filter(|own| pool.is_none_or(|pool| own.name.get_ref() == pool));
    let nodes = pools.flat_map(|pool| &mut pool.nodes);
    let found: Vec<_> = nodes
        .filter(|node| selects(selector, &node.name, *node.address.get_ref()))
        .collect();
    if found.is_empty() {
        return Err(EditError::Unknown {
            what: "node",
            name: selector.to_owned(),
            closest: suggest::closest(selector, names.iter().map(String::as_str))
                .map(str::to_owned),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
