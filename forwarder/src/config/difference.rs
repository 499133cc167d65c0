//! What a new configuration changes, and what it cannot change while the forwarder runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{Display, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use super::model::{
    Check, ClientAddress, Config, FlowLog, Keyword, Listener, Node, OnDown, Pattern, Pool,
    Protocol, ProxyCommand, Route, WhenEmpty,
};

/// Names that an answer tells one by one, of those that are added, removed or changed.
const NAMES_MAX: usize = 1_000;

/// What differs between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Keys of `[entrance]`, `[metrics]`, `[flow_log]` and `[geoip]`.
    pub entrance: Changes,
    /// Listeners.
    pub listeners: Changes,
    /// Listed names.
    pub names: Changes,
    /// Pools.
    pub pools: Changes,
    /// Nodes, each as `pool/address`.
    pub nodes: Changes,
}

/// What differs among things of one sort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// New ones, with what they are.
    pub added: BTreeMap<String, String>,
    /// Those that are gone, with what they were.
    pub removed: BTreeMap<String, String>,
    /// Those that are no longer what they were, with both.
    pub changed: BTreeMap<String, [String; 2]>,
    /// How many more there are, of all three.
    #[serde(default)]
    pub more: usize,
}

/// A key that keeps its value until the maps are made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    /// The key of `[entrance]`.
    pub key: String,
    /// The value that stays.
    pub running: String,
    /// The value in the file.
    pub file: String,
}

impl Difference {
    /// From `old` to `new`.
    pub fn between(old: &Config, new: &Config) -> Self {
        let longest = |config: &Config| config.routes.iter().map(|own| own.names.len()).max();
        let room = longest(old).max(longest(new)).unwrap_or_default() * 2;
        Self {
            entrance: Changes::between(entrance(old), entrance(new)),
            listeners: Changes::between(listeners(old), listeners(new)),
            names: Ways::between([old, new], [&|_| true, &|_| true], |_| true, room).changes(),
            pools: Changes::between(pools(old), pools(new)),
            nodes: Changes::between(nodes(old), nodes(new)),
        }
    }

    /// From `old` to `new`, which an edit of these names has made of it. Routes that the two share are passed over,
    /// unless they list one of these `elsewhere`, on another listener.
    pub fn of_names(old: &Config, new: &Config, only: &[Pattern], elsewhere: bool) -> Self {
        let looks_beyond = |other: &Config| {
            let shared: HashSet<_> = other.routes.iter().map(Arc::as_ptr).collect();
            move |route: &Arc<Route>| elsewhere || !shared.contains(&Arc::as_ptr(route))
        };
        let wanted: HashSet<&Pattern> = only.iter().collect();
        Self {
            names: Ways::between(
                [old, new],
                [&looks_beyond(new), &looks_beyond(old)],
                |name| wanted.contains(name),
                only.len(),
            )
            .changes(),
            ..Self::default()
        }
    }

    /// Whether the two are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many differences there are.
    pub fn count(&self) -> usize {
        self.sorts().iter().map(|(_, own)| own.count()).sum()
    }

    fn sorts(&self) -> [(&'static str, &Changes); 5] {
        [
            ("entrance", &self.entrance),
            ("listener", &self.listeners),
            ("pool", &self.pools),
            ("node", &self.nodes),
            ("name", &self.names),
        ]
    }

    /// A line for each difference.
    pub fn render(&self) -> String {
        self.lines().map(|line| line + "\n").collect()
    }

    /// The lines of [`Self::render`].
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.sorts().into_iter().flat_map(|(sort, changes)| {
            let added = changes.added.iter();
            let added = added.map(move |(key, value)| format!("+ {sort:<9} {key}  {value}"));
            let removed = changes.removed.iter();
            let removed = removed.map(move |(key, value)| format!("- {sort:<9} {key}  {value}"));
            let changed = changes.changed.iter();
            let changed =
                changed.map(move |(key, [old, new])| format!("~ {sort:<9} {key}  {old} → {new}"));
            let more = (changes.more > 0).then(|| format!("… {sort:<9} and {} more", changes.more));
            added.chain(removed).chain(changed).chain(more)
        })
    }
}

impl Changes {
    fn between(old: BTreeMap<String, String>, mut new: BTreeMap<String, String>) -> Self {
        let mut changes = Self::default();
        for (key, before) in old {
            match new.remove(&key) {
                None => {
                    changes.removed.insert(key, before);
                }
                Some(after) if after != before => {
                    changes.changed.insert(key, [before, after]);
                }
                Some(_) => {}
            }
        }
        changes.added = new;
        changes
    }

    fn count(&self) -> usize {
        self.added.len() + self.removed.len() + self.changed.len() + self.more
    }
}

/// Gives `new` the values of `running` that cannot change while maps are pinned; returns those that differ.
pub fn keep_fixed(running: &Config, new: &mut Config) -> Vec<Fixed> {
    let mut fixed = Vec::new();
    let mut note = |key: &str, running: String, file: String| {
        if running != file {
            let key = key.to_owned();
            fixed.push(Fixed { key, running, file });
        }
    };
    let (old, own) = (&running.entrance, &mut new.entrance);
    let ports = |entrance: &super::model::Entrance| {
        let ports = entrance.source_ports.get_ref();
        format!("{}-{}", ports.start(), ports.end())
    };
    note(
        "max_flows",
        old.max_flows.to_string(),
        own.max_flows.to_string(),
    );
    note(
        "hello_buffers",
        old.hello_buffers.to_string(),
        own.hello_buffers.to_string(),
    );
    note("source_ports", ports(old), ports(own));
    note(
        "bpffs",
        old.bpffs.display().to_string(),
        own.bpffs.display().to_string(),
    );
    own.max_flows = old.max_flows;
    own.hello_buffers = old.hello_buffers;
    own.source_ports = old.source_ports.clone();
    own.bpffs = old.bpffs.clone();
    fixed
}

/// The word of an enumeration's value.
pub fn word<T: Keyword + PartialEq>(value: T) -> &'static str {
    let found = T::WORDS.iter().find(|(_, own)| *own == value);
    found.map_or("", |(word, _)| *word)
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

fn entrance(config: &Config) -> BTreeMap<String, String> {
    let own = &config.entrance;
    let lines = [
        (
            "public",
            joined(own.public.iter().map(|name| name.get_ref())),
        ),
        (
            "tunnels",
            joined(own.tunnels.iter().map(|name| name.get_ref())),
        ),
        (
            "idle_timeout",
            humantime::format_duration(own.idle_timeout).to_string(),
        ),
        (
            "hello_timeout",
            humantime::format_duration(own.hello_timeout).to_string(),
        ),
        ("max_flows_per_source", own.max_flows_per_source.to_string()),
        ("rst_rate", own.rst_rate.to_string()),
        ("watch", own.watch.to_string()),
        ("xdp", word(own.xdp).to_owned()),
        ("xdp_veth", own.xdp_veth.to_string()),
        ("xdp_above", own.xdp_above.to_string()),
        (
            "xdp_calm",
            humantime::format_duration(own.xdp_calm).to_string(),
        ),
        (
            "metrics",
            config
                .metrics
                .listen
                .map_or_else(|| String::from("off"), |at| at.to_string()),
        ),
        (
            "metrics.max_targets",
            config.metrics.max_targets.to_string(),
        ),
        ("flow_log", flow_log(&config.flow_log)),
        ("geoip.country", path(&config.geoip.country)),
        ("geoip.asn", path(&config.geoip.asn)),
    ];
    lines
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn flow_log(own: &FlowLog) -> String {
    let kinds = [
        (own.opened, "opened"),
        (own.closed, "closed"),
        (own.refused, "refused"),
    ];
    let kinds = kinds.iter().filter(|(wanted, _)| *wanted);
    let kinds: Vec<_> = kinds.map(|(_, kind)| *kind).collect();
    let kinds = match kinds.as_slice() {
        [] => String::from("nothing"),
        kinds => kinds.join(", "),
    };
    let (to, rate, burst) = (&own.to, own.rate, own.burst);
    let (refused, size) = (own.refused_per_minute, own.max_size);
    format!(
        "{kinds} to {to}, {rate} lines/s, burst {burst}, {refused} refused/min, at most {size} bytes"
    )
}

fn path(path: &Option<PathBuf>) -> String {
    let path = path.as_ref();
    path.map_or_else(|| String::from("none"), |path| path.display().to_string())
}

fn listeners(config: &Config) -> BTreeMap<String, String> {
    let describe = |own: &Listener| {
        let addresses = own.addresses.as_ref().map_or_else(
            || String::from("all addresses"),
            |list| joined(list.iter().map(|address| address.get_ref())),
        );
        let Protocol::Tls = own.protocol;
        format!(
            "tls port {} on {addresses}, refuses by {}",
            own.port,
            word(own.on_refuse)
        )
    };
    let all = config.listeners.iter();
    all.map(|own| (own.name.get_ref().clone(), describe(own)))
        .collect()
}

/// Where listed names lead before and after. There may be a million of them, but hardly as many ways: each set of
/// routes that list the same names is described once.
struct Ways<'a> {
    /// Names with the numbers of their sets, before and after.
    sets: HashMap<&'a str, [usize; 2], RandomState>,
    /// The sets in words, before and after; the first is the empty one.
    described: [Vec<String>; 2],
}

/// Whether a route is looked at.
type Choice<'a> = dyn Fn(&Arc<Route>) -> bool + 'a;

impl<'a> Ways<'a> {
    /// Those of the names `wanted` in the routes that are looked at. To grow beyond the `room` for so many means to
    /// hash all again.
    fn between(
        configs: [&'a Config; 2],
        looks_at: [&Choice<'_>; 2],
        wanted: impl Fn(&Pattern) -> bool,
        room: usize,
    ) -> Self {
        let mut sets: HashMap<&str, [usize; 2], RandomState> = HashMap::default();
        sets.reserve(room);
        let mut described = [Vec::new(), Vec::new()];
        for (side, config) in configs.into_iter().enumerate() {
            let routes = config.routes.iter().filter(|route| looks_at[side](route));
            let mut known: Vec<Vec<&Route>> = vec![Vec::new()];
            for same in with_the_same_names(routes) {
                // What becomes of a set when these routes are added.
                let mut with: HashMap<usize, usize, RandomState> = HashMap::default();
                for name in same[0].names.iter().filter(|name| wanted(name)) {
                    let set = &mut sets.entry(name.as_str()).or_default()[side];
                    *set = *with.entry(*set).or_insert_with(|| {
                        let more = known[*set].iter().chain(&same).copied();
                        known.push(more.collect());
                        known.len() - 1
                    });
                }
            }
            let words = known.iter().map(|routes| describe_way(config, routes));
            described[side] = words.collect();
        }
        Self { sets, described }
    }

    /// What differs; of each sort of change no more than [`NAMES_MAX`] are named.
    fn changes(&self) -> Changes {
        let mut changes = Changes::default();
        for (name, [before, after]) in &self.sets {
            let [was, now] = [&self.described[0][*before], &self.described[1][*after]];
            match (before, after) {
                (0, _) if changes.added.len() < NAMES_MAX => {
                    changes.added.insert((*name).to_owned(), now.clone());
                }
                (_, 0) if changes.removed.len() < NAMES_MAX => {
                    changes.removed.insert((*name).to_owned(), was.clone());
                }
                (1.., 1..) if was == now => {}
                (1.., 1..) if changes.changed.len() < NAMES_MAX => {
                    let both = [was.clone(), now.clone()];
                    changes.changed.insert((*name).to_owned(), both);
                }
                _ => changes.more += 1,
            }
        }
        changes
    }
}

/// Routes, those together that list the same names: often the same ones are listed for several listeners.
fn with_the_same_names<'a>(routes: impl Iterator<Item = &'a Arc<Route>>) -> Vec<Vec<&'a Route>> {
    let mut lists: Vec<Vec<&Route>> = Vec::new();
    let mut index: HashMap<(&Pattern, usize), usize, RandomState> = HashMap::default();
    for route in routes {
        let Some(first) = route.names.first() else {
            continue;
        };
        let at = *index
            .entry((first, route.names.len()))
            .or_insert(lists.len());
        match lists.get_mut(at) {
            Some(same) if same[0].names == route.names => same.push(route),
            _ => lists.push(vec![route]),
        }
    }
    lists
}

/// Where a name leads that these routes list.
fn describe_way(config: &Config, routes: &[&Route]) -> String {
    let mut ways: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for route in routes {
        let pool = config.pools[route.pool].name.get_ref().as_str();
        ways.entry(pool).or_default().extend(&route.listeners);
    }
    joined(ways.into_iter().map(|(pool, mut listeners)| {
        listeners.sort_unstable();
        if listeners.len() == config.listeners.len() {
            return pool.to_owned();
        }
        let on = listeners
            .iter()
            .map(|at| config.listeners[*at].name.get_ref());
        format!("{pool} (on {})", joined(on))
    }))
}

fn pools(config: &Config) -> BTreeMap<String, String> {
    let describe = |own: &Pool| {
        let mut text = format!("{}, by {}", word(own.client_address), word(own.balance));
        describe_health(own, &mut text);
        text
    };
    let all = config.pools.iter();
    all.map(|own| (own.name.get_ref().clone(), describe(own)))
        .collect()
}

/// What is not as it is when nothing is written.
fn describe_health(pool: &Pool, text: &mut String) {
    let checks = &pool.health;
    let time = humantime::format_duration;
    if checks.check != Check::None {
        let (every, within) = (time(checks.interval), time(checks.timeout));
        let _ = write!(
            text,
            ", check {} every {every} within {within}, rise {}, fall {}",
            word(checks.check),
            checks.rise,
            checks.fall
        );
        if let Some(name) = &checks.server_name {
            let _ = write!(text, ", name {name}");
        }
        if checks.check.is_http() {
            let _ = write!(text, ", path {}", checks.path);
        }
        if !checks.expect.is_empty() {
            let _ = write!(text, ", expect {:?}", checks.expect);
        }
    }
    let proxied = pool.client_address == ClientAddress::ProxyV2;
    let speaks = checks.check.is_tls() || checks.check.is_http();
    let usual = (proxied && speaks).then_some(ProxyCommand::Local);
    let header = |command| checks.proxy != usual && checks.proxy == command;
    let flags = [
        (checks.verify, "verified"),
        (header(Some(ProxyCommand::Local)), "with PROXY header"),
        (
            header(Some(ProxyCommand::Proxy)),
            "with PROXY header, command PROXY",
        ),
        (header(None), "checks without PROXY header"),
        (!checks.passive, "not by clients"),
        (pool.when_empty == WhenEmpty::Refuse, "refused when empty"),
        (pool.on_down == OnDown::Reset, "reset on down"),
    ];
    for (_, words) in flags.iter().filter(|(holds, _)| *holds) {
        let _ = write!(text, ", {words}");
    }
    if !pool.slow_start.is_zero() {
        let _ = write!(text, ", slow start {}", time(pool.slow_start));
    }
}

fn nodes(config: &Config) -> BTreeMap<String, String> {
    let describe = |node: &Node| {
        let mut text = format!("weight {}", node.weight);
        if node.name != node.address.get_ref().to_string() {
            text = format!("{}, {text}", node.name);
        }
        if node.state != super::model::NodeState::Ready {
            let _ = write!(text, ", {}", word(node.state));
        }
        text
    };
    let mut all = BTreeMap::new();
    for pool in &config.pools {
        for node in &pool.nodes {
            let key = format!("{}/{}", pool.name.get_ref(), node.address.get_ref());
            all.insert(key, describe(node));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = include_str!("../../tests/check/fine-every-form.toml");

    fn config(text: &str) -> Config {
        let outcome = super::super::parse(Path::new("test.toml"), text);
        let report = outcome.report.render(false);
        outcome.config.unwrap_or_else(|| panic!("{report}"))
    }

    const BASE: &str = "[entrance]\npublic=['eth0']\ntunnels=['wg0']\n[[listener]]\nname='https'\nprotocol='tls'\nport=443\n[[pool]]\nclient_address='transparent'\nname='k3s'\nnodes=['10.0.0.2:443']\n[[pool]]\nclient_address='transparent'\nname='other'\nnodes=['10.0.0.3:443']\n[[route]]\nnames=['a.example.org','b.example.org']\npool='k3s'\n[[route]]\nnames=['c.example.org']\npool='other'\n";

    #[test]
    fn the_same_file_differs_in_nothing() {
        for text in [TEXT, BASE] {
            let difference = Difference::between(&config(text), &config(text));
            assert!(difference.is_empty(), "{difference:?}");
            assert_eq!(difference.render(), "");
        }
    }

    #[test]
    fn each_sort_of_change_is_told() {
        let new = BASE
            .replace("'b.example.org'", "'d.example.org'")
            .replace(
                "names=['c.example.org']\npool='other'",
                "names=['c.example.org']\npool='k3s'",
            )
            .replace("port=443", "port=8443")
            .replace(
                "'10.0.0.3:443'",
                "{address='10.0.0.3:443',weight=7},'10.0.0.4:443'",
            )
            .replace("[[listener]]", "rst_rate=5\n[[listener]]");
        let difference = Difference::between(&config(BASE), &config(&new));
        let text = difference.render();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "~ entrance  rst_rate  1000 → 5",
                "~ listener  https  tls port 443 on all addresses, refuses by alert → tls port 8443 on all addresses, refuses by alert",
                "+ node      other/10.0.0.4:443  weight 1",
                "~ node      other/10.0.0.3:443  weight 1 → weight 7",
                "+ name      d.example.org  k3s",
                "- name      b.example.org  k3s",
                "~ name      c.example.org  other → k3s",
            ],
        );
        assert_eq!(difference.count(), 7);
    }

    #[test]
    fn every_key_of_health_is_a_difference() {
        let with = |more: &str| BASE.replace("name='other'", &format!("name='other'\n{more}"));
        let https = |more: &str| with(&format!("health = {{ check = 'https'{more} }}"));
        for changed in [
            https(", server_name = 'x.example.org'"),
            https(", path = '/x'"),
            https(", expect = [404]"),
            https(", interval = '7s'"),
            https(", timeout = '1s'"),
            https(", rise = 1"),
            https(", fall = 1"),
            https(", proxy = true"),
            https(", verify = true"),
            https(", passive = false"),
            with("health = { check = 'tls' }"),
            with("slow_start = '9s'"),
            with("when_empty = 'refuse'"),
            with("on_down = 'reset'"),
            with("health = { check = 'https', proxy = false }").replace(
                "client_address='transparent'\nname='other'",
                "client_address='proxy-v2'\nname='other'",
            ),
        ] {
            let difference = Difference::between(&config(&https("")), &config(&changed));
            assert_eq!(difference.count(), 1, "{changed}");
        }
    }

    #[test]
    fn every_key_of_seeing_is_a_difference() {
        for changed in [
            "[flow_log]\nto = 'stdout'",
            "[flow_log]\nopened = true",
            "[flow_log]\nclosed = false",
            "[flow_log]\nrefused = false",
            "[flow_log]\nrate = 7",
            "[flow_log]\nburst = 7",
            "[flow_log]\nrefused_per_minute = 7",
            "[flow_log]\nmax_size = '7MB'",
            "[metrics]\nmax_targets = 7",
            "[geoip]\ncountry = '/c.mmdb'",
            "[geoip]\nasn = '/a.mmdb'",
        ] {
            let new = config(&format!("{BASE}{changed}\n"));
            let difference = Difference::between(&config(BASE), &new);
            assert_eq!(difference.count(), 1, "{changed}");
        }
    }

    #[test]
    fn of_very_many_names_only_some_are_told() {
        let with = |generation: &str| {
            let names = (0..NAMES_MAX + 7).map(|at| format!("'{generation}{at}.example.org'"));
            let names: Vec<_> = names.collect();
            BASE.replace("'c.example.org'", &names.join(","))
        };
        let difference = Difference::between(&config(&with("a")), &config(&with("b")));
        let names = &difference.names;
        assert_eq!(
            (names.added.len(), names.removed.len()),
            (NAMES_MAX, NAMES_MAX)
        );
        assert_eq!((names.more, difference.count()), (14, 2 * NAMES_MAX + 14));
        assert_eq!(
            difference.lines().last().unwrap(),
            "… name      and 14 more"
        );
    }

    #[test]
    fn sizes_of_maps_stay() {
        let running = config(BASE);
        let mut new = config(&BASE.replace(
            "[[listener]]",
            "max_flows=128\nsource_ports='2000-3000'\n[[listener]]",
        ));
        let fixed = keep_fixed(&running, &mut new);
        let keys: Vec<_> = fixed.iter().map(|own| own.key.as_str()).collect();
        assert_eq!(keys, ["max_flows", "source_ports"]);
        assert_eq!(
            (fixed[0].running.as_str(), fixed[0].file.as_str()),
            ("65536", "128")
        );
        assert_eq!(new.entrance.max_flows, 65_536);
        assert!(keep_fixed(&running, &mut new).is_empty());
    }
}
