//! Which edits go on with another configuration: those about nodes, as long as the file says of these nodes what it said
//! when the edit was made. Routes are the file's.
//!
//! HAProxy's server-state file follows the same rule: a weight or a state set at run time holds until the configured
//! one changes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::edit::{Edit, selects};
use super::model::{Config, Node, NodeState};

/// An edit, and what the file said at that time of what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The edit.
    #[serde(flatten)]
    pub edit: Edit,
    /// Nodes that it is about; of edits of routes none.
    #[serde(default)]
    filed: Vec<Filed>,
}

/// What the file says of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Filed {
    pool: String,
    node: SocketAddr,
    weight: u16,
    state: NodeState,
}

/// How long an edit is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasts {
    /// Until the files are read again.
    Reload,
    /// Until somebody sets the node anew, or the file says otherwise of it; over reloads and restarts.
    Changed,
    /// It is in the files.
    Filed,
}

impl Lasts {
    /// Of an edit that was written into the files, or not.
    pub fn of(edit: &Edit, persisted: bool) -> Self {
        match edit {
            _ if persisted => Self::Filed,
            Edit::State { .. } | Edit::Weight { .. } => Self::Changed,
            Edit::AddRoute { .. } | Edit::RemoveNames { .. } => Self::Reload,
        }
    }
}

/// The nodes of a configuration that an edit is about.
fn meant<'a>(edit: &Edit, config: &'a Config) -> Vec<(&'a str, &'a Node)> {
    let (selector, only) = match edit {
        Edit::State { node, .. } => (node, None),
        Edit::Weight { node, pool, .. } => (node, pool.as_ref()),
        Edit::AddRoute { .. } | Edit::RemoveNames { .. } => return Vec::new(),
    };
    let pools = config.pools.iter();
    let pools = pools.filter(|pool| only.is_none_or(|only| only == pool.name.get_ref()));
    pools
        .flat_map(|pool| {
            let name = pool.name.get_ref().as_str();
            pool.nodes.iter().map(move |node| (name, node))
        })
        .filter(|(_, node)| selects(selector, &node.name, *node.address.get_ref()))
        .collect()
}

impl Kept {
    /// An edit of a configuration whose files say `filed`.
    pub fn new(edit: Edit, filed: &Config) -> Self {
        let nodes = meant(&edit, filed).into_iter();
        let filed = nodes.map(|(pool, node)| Filed {
            pool: pool.to_owned(),
            node: *node.address.get_ref(),
            weight: node.weight,
            state: node.state,
        });
        Self {
            filed: filed.collect(),
            edit,
        }
    }

    /// Whether it goes on now that the files say `config`.
    pub fn outlives(&self, config: &Config) -> bool {
        let now = meant(&self.edit, config);
        let same = |(pool, node): &(&str, &Node)| {
            let mut before = self.filed.iter();
            let before =
                before.find(|own| own.pool == *pool && own.node == *node.address.get_ref());
            // One that is new takes the edit over: its name or its address is that of the others.
            before.is_none_or(|own| match self.edit {
                Edit::Weight { .. } => own.weight == node.weight,
                _ => own.state == node.state,
            })
        };
        !now.is_empty() && now.iter().all(same)
    }
}

/// Adds an edit to those in force, and drops those that it makes void. Says whether it is the only change.
pub fn add(edits: &mut Vec<Kept>, edit: Edit, filed: &Config) -> bool {
    let before = edits.len();
    edits.retain(|own| !supersedes(&edit, &own.edit));
    let mut clean = before == edits.len();
    if is_needed(edits, &edit, filed) {
        edits.push(Kept::new(edit, filed));
    } else {
        clean = false;
    }
    clean
}

/// Whether `edit` sets again what `former` has set.
pub fn supersedes(edit: &Edit, former: &Edit) -> bool {
    match (edit, former) {
        (Edit::State { node, .. }, Edit::State { node: was, .. }) => node == was,
        (
            Edit::Weight { node, pool, .. },
            Edit::Weight {
                node: was,
                pool: within,
                ..
            },
        ) => node == was && (pool.is_none() || pool == within),
        _ => false,
    }
}

/// Whether something is different with `edit`: not if the files say the same, and no other edit of its kind says
/// otherwise.
fn is_needed(edits: &[Kept], edit: &Edit, filed: &Config) -> bool {
    let kind = std::mem::discriminant(edit);
    if edits
        .iter()
        .any(|own| std::mem::discriminant(&own.edit) == kind)
    {
        return true;
    }
    let nodes = meant(edit, filed);
    match edit {
        Edit::State { state, .. } => nodes.iter().any(|(_, node)| node.state != *state),
        Edit::Weight { weight, .. } => nodes.iter().any(|(_, node)| node.weight != *weight),
        Edit::AddRoute { .. } | Edit::RemoveNames { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = r#"
[entrance]
public = ["eth0"]
tunnels = ["wg0"]
[[listener]]
name = "https"
protocol = "tls"
port = 443
[[route]]
names = ["www.example.org"]
pool = "web"
[[pool]]
name = "web"
client_address = "transparent"
nodes = [{ name = "one", address = "10.0.0.2:443", weight = 2 }, "10.0.0.3:443"]
[[pool]]
name = "apps"
client_address = "transparent"
nodes = ["10.0.0.2:8443"]
[[route]]
names = ["apps.example.org"]
pool = "apps"
"#;

    fn parse(text: &str) -> Config {
        let outcome = crate::config::parse(Path::new("test.toml"), text.to_owned());
        let report = outcome.report;
        outcome
            .config
            .unwrap_or_else(|| panic!("{}", report.render(false)))
    }

    fn state(node: &str, state: NodeState) -> Edit {
        let node = node.to_owned();
        Edit::State { node, state }
    }

    fn weight(node: &str, pool: Option<&str>, weight: u16) -> Edit {
        let (node, pool) = (node.to_owned(), pool.map(str::to_owned));
        Edit::Weight { node, pool, weight }
    }

    #[test]
    fn edits_of_nodes_go_on_until_the_file_says_otherwise() {
        let config = parse(TEXT);
        let other = parse(&TEXT.replace("www.example", "new.example"));
        let heavier = parse(&TEXT.replace("weight = 2", "weight = 3"));
        let gone = parse(&TEXT.replace(
            "{ name = \"one\", address = \"10.0.0.2:443\", weight = 2 }, ",
            "",
        ));
        let drained = Kept::new(state("one", NodeState::Drain), &config);
        let weighed = Kept::new(weight("one", None, 0), &config);
        for kept in [&drained, &weighed] {
            assert!(kept.outlives(&config) && kept.outlives(&other), "{kept:?}");
            assert!(!kept.outlives(&gone), "{kept:?}");
            let text = serde_json::to_string(kept).unwrap();
            assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), *kept);
        }
        assert!(drained.outlives(&heavier) && !weighed.outlives(&heavier));
        let names = vec![String::from("www.example.org")];
        let removed = Kept::new(Edit::RemoveNames { names }, &config);
        assert!(!removed.outlives(&config));
        // A file of a former version says nothing of nodes.
        let former = r#"{"edit":"state","node":"one","state":"drain"}"#;
        let former: Kept = serde_json::from_str(former).unwrap();
        assert!(former.outlives(&config));
    }

    #[test]
    fn only_what_is_in_force_is_kept() {
        let config = parse(TEXT);
        let mut edits = Vec::new();
        assert!(add(&mut edits, state("one", NodeState::Drain), &config));
        assert!(!add(&mut edits, state("one", NodeState::Maint), &config));
        assert_eq!(edits.len(), 1);
        assert!(add(&mut edits, weight("one", Some("web"), 5), &config));
        assert!(!add(&mut edits, weight("one", None, 7), &config));
        assert_eq!(edits.len(), 2);
        assert!(!add(&mut edits, weight("one", None, 2), &config));
        assert!(!add(&mut edits, state("one", NodeState::Ready), &config));
        assert_eq!(edits, [], "it is as the file says");
    }

    #[test]
    fn one_of_several_that_are_drained_by_address_can_be_made_ready() {
        let config = parse(TEXT);
        let mut edits = Vec::new();
        add(&mut edits, state("10.0.0.2", NodeState::Drain), &config);
        add(&mut edits, state("one", NodeState::Ready), &config);
        let apply = |config: Config, own: &Kept| own.edit.apply(&config).unwrap();
        let now = edits.iter().fold(config.clone(), apply);
        let states = |at: usize| now.pools[at].nodes[0].state;
        assert_eq!((states(0), states(1)), (NodeState::Ready, NodeState::Drain));
    }
}
