//! Rules of this machine's firewall that claimed ports pass by: bans of clients that do not hold there, and ports
//! that are translated to another machine or container without any socket that would show it.
//!
//! The rules are read as text, from `iptables-save`, `ip6tables-save` and `nft list ruleset`, as far as these are
//! installed and say something. It is a hint for people: what is not understood is passed over.

use std::net::IpAddr;
use std::process::Command;

use super::claim;
use super::diagnostic::Diagnostic;
use super::model::{Config, Listener};
use crate::link::Network;

/// Programs that list rules, and where they are beside `PATH`.
const LISTS: [&[&str]; 3] = [
    &["iptables-save"],
    &["ip6tables-save"],
    &["nft", "list", "ruleset"],
];
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// What the firewall says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    rules: Vec<Rule>,
}

/// A rule that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    kind: Kind,
    /// Where it stands: a chain.
    chain: String,
    /// Ports it holds for; `None`: all.
    ports: Option<Vec<(u16, u16)>>,
    /// Destinations it holds for; `None`: all.
    destination: Option<(IpAddr, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Packets go to another machine or container.
    Translates,
    /// Packets of some sources are dropped.
    Bans,
}

impl Firewall {
    /// That of this network namespace; empty without the right to see it.
    pub fn here() -> Self {
        let mut rules = Vec::new();
        for list in LISTS {
            let text = list_rules(list).unwrap_or_default();
            rules.extend(match list {
                ["nft", ..] => nft(&text),
                _ => iptables(&text),
            });
        }
        Self { rules }
    }
}

fn list_rules(words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let run = |program: String| Command::new(program).args(arguments).output().ok();
    let beside = DIRECTORIES.iter().map(|own| format!("{own}/{program}"));
    let output = std::iter::once((*program).to_owned())
        .chain(beside)
        .find_map(run)?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The chain of a rule by which a listener's packets go elsewhere.
pub fn translated<'a>(
    config: &Config,
    network: &Network,
    firewall: &'a Firewall,
) -> Vec<(usize, &'a str)> {
    let mut all = Vec::new();
    for (at, listener) in config.listeners.iter().enumerate() {
        let claimed = claim::claimed(config, network, at);
        let mut rules = firewall.rules.iter();
        let rule =
            rules.find(|rule| rule.kind == Kind::Translates && rule.takes(listener, &claimed));
        all.extend(rule.map(|rule| (at, rule.chain.as_str())));
    }
    all
}

/// Chains with bans that do not hold for claimed ports.
pub fn passed_by<'a>(config: &Config, network: &Network, firewall: &'a Firewall) -> Vec<&'a str> {
    let mut chains: Vec<&str> = Vec::new();
    for (at, listener) in config.listeners.iter().enumerate() {
        let claimed = claim::claimed(config, network, at);
        let rules = firewall.rules.iter();
        let bans = rules.filter(|rule| rule.kind == Kind::Bans && rule.takes(listener, &claimed));
        chains.extend(bans.map(|rule| rule.chain.as_str()));
    }
    chains.sort_unstable();
    chains.dedup();
    chains
}

/// Warnings about both.
pub fn check(config: &Config, network: &Network, firewall: &Firewall) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for (at, chain) in translated(config, network, firewall) {
        let listener = &config.listeners[at];
        findings.push(
            Diagnostic::warning(
                "takes-translated",
                listener.name.span(),
                format!(
                    "listener `{}` takes port {} from {}",
                    listener.name.get_ref(),
                    listener.port,
                    owner(chain)
                ),
            )
            .label(format!(
                "a rule of the chain {chain} translates this port; while the forwarder is loaded nobody reaches it"
            ))
            .help("give the listener another port or other `addresses`, or take the port away from the other; a k3s node that is an entrance too is started with `--disable=servicelb`"),
        );
    }
    let chains = passed_by(config, network, firewall);
    if let (Some(listener), false) = (config.listeners.first(), chains.is_empty()) {
        findings.push(
            Diagnostic::warning(
                "firewall-passed-by",
                listener.name.span(),
                "bans of this machine's firewall do not hold for claimed ports",
            )
            .label(format!("sources are dropped in {}", chains.join(", ")))
            .help("claimed packets are taken before netfilter sees them; ban at the provider's firewall or at the nodes, by the address of the PROXY header"),
        );
    }
    findings
}

/// Who makes rules in such a chain.
pub fn owner(chain: &str) -> &'static str {
    if chain.starts_with("KUBE-") || chain.starts_with("CNI-") || chain.starts_with("kube-") {
        "Kubernetes (a hostPort, or k3s ServiceLB)"
    } else if chain.starts_with("DOCKER") {
        "a container of Docker"
    } else {
        "a translation rule of this machine"
    }
}

impl Rule {
    fn takes(&self, listener: &Listener, claimed: &[IpAddr]) -> bool {
        let port = self.ports.as_ref().is_none_or(|ports| {
            let holds = |(first, last): &(u16, u16)| (*first..=*last).contains(&listener.port);
            ports.iter().any(holds)
        });
        let destination = self
            .destination
            .is_none_or(|(ip, bits)| claimed.iter().any(|own| within(*own, ip, bits)));
        // A translation without a port is one of everything, such as a container's own address.
        let everything = self.kind == Kind::Translates && self.ports.is_none();
        port && destination && !everything && !claimed.is_empty()
    }
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    let shift = width - u32::from(bits).min(width);
    (address ^ network).checked_shr(shift).unwrap_or(0) == 0
}

fn prefix(word: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = match word.split_once('/') {
        Some((ip, bits)) => (ip, bits.parse().ok()),
        None => (word, None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    Some((ip, bits.unwrap_or(if ip.is_ipv4() { 32 } else { 128 })))
}

/// `443`, `80,443`, `8000:8100`, `8000-8100`
fn ports(word: &str) -> Vec<(u16, u16)> {
    let parts = word.split(',').filter_map(|part| {
        let mut ends = part.trim().split([':', '-']);
        let first = ends.next()?.parse().ok()?;
        Some((
            first,
            ends.next().map_or(Some(first), |last| last.parse().ok())?,
        ))
    });
    parts.collect()
}

/// Chains through which a client's packets do not come in.
fn is_outward(chain: &str) -> bool {
    let chain = chain.to_ascii_uppercase();
    ["OUTPUT", "POSTROUTING", "FORWARD"]
        .iter()
        .any(|word| chain.contains(word))
}

/// The output of `iptables-save(8)`.
fn iptables(text: &str) -> Vec<Rule> {
    let mut table = "";
    let mut rules = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
            continue;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let ["-A", chain, rest @ ..] = words.as_slice() else {
            continue;
        };
        if is_outward(chain) {
            continue;
        }
        let after = |option: &str| {
            let at = rest.iter().position(|word| *word == option)?;
            let denied = at > 0 && rest[at - 1] == "!";
            (!denied).then(|| rest.get(at + 1).copied()).flatten()
        };
        let target = after("-j").or_else(|| after("-g")).unwrap_or_default();
        let dports = after("--dport").or_else(|| after("--dports"));
        let source = after("-s").is_some_and(|from| !from.starts_with("127.") && from != "::1/128")
            || rest.windows(2).any(|pair| pair == ["set", "--match-set"]);
        let cluster =
            chain.starts_with("KUBE-") || chain.starts_with("CNI-") || chain.starts_with("DOCKER");
        let kind = match (table, target) {
            ("nat", "DNAT" | "REDIRECT" | "TPROXY") => Kind::Translates,
            ("nat", target) if target.starts_with("KUBE-EXT") || target.starts_with("KUBE-SVC") => {
                Kind::Translates
            }
            ("nat", target) if target.starts_with("KUBE-FW") || target.starts_with("CNI-DN") => {
                Kind::Translates
            }
            ("filter" | "raw" | "mangle", "DROP" | "REJECT") if source && !cluster => Kind::Bans,
            _ => continue,
        };
        rules.push(Rule {
            kind,
            chain: (*chain).to_owned(),
            ports: dports.map(ports),
            destination: after("-d").and_then(prefix),
        });
    }
    rules
}

/// The output of `nft list ruleset`.
fn nft(text: &str) -> Vec<Rule> {
    let mut chain = "";
    let mut rules = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches('{').trim();
            continue;
        }
        if chain.is_empty() || is_outward(chain) {
            continue;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let has = |word: &str| words.contains(&word);
        let source = line.contains(" saddr ") || line.starts_with("saddr ");
        let cluster =
            chain.starts_with("KUBE-") || chain.starts_with("CNI-") || chain.starts_with("DOCKER");
        let kind = if has("dnat") || has("redirect") {
            Kind::Translates
        } else if (has("drop") || has("reject")) && source && !cluster {
            Kind::Bans
        } else {
            continue;
        };
        rules.push(Rule {
            kind,
            chain: chain.to_owned(),
            ports: nft_value(line, "dport").map(|value| ports(&value)),
            destination: nft_value(line, "daddr").as_deref().and_then(prefix),
        });
    }
    rules
}

/// What stands behind a word: `443`, or the list in braces.
fn nft_value(line: &str, word: &str) -> Option<String> {
    let rest = line.split_once(&format!("{word} "))?.1.trim_start();
    if let Some(list) = rest.strip_prefix('{') {
        return Some(list.split('}').next()?.replace(' ', ""));
    }
    Some(rest.split_whitespace().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::link::{Link, LinkKind};

    const TEXT: &str = "[entrance]\npublic = ['eth0']\ntunnels = ['wg0']\n[[listener]]\nname = 'https'\nprotocol = 'tls'\nport = 443\n";

    /// As k3s writes it for Traefik's service behind ServiceLB, and for what is none of ours.
    const K3S: &str = r#"*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.0.0.1:443
-A KUBE-SERVICES -d 10.43.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
COMMIT
"#;
    const HOSTPORT: &str = r#"*nat
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"cbr0\" id: \"1f\"" -m multiport --dports 80,443 -j CNI-DN-4b9c1
COMMIT
"#;
    const EXTERNAL: &str = "*nat\n-A KUBE-SERVICES -d 203.0.113.7/32 -p tcp -m tcp --dport 443 -j KUBE-EXT-UQMCRMJZLI3FTLDP\nCOMMIT\n";
    const DOCKER: &str = "*nat\n-A DOCKER ! -i docker0 -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.2:443\nCOMMIT\n";
    const FAIL2BAN: &str = "*filter\n-A INPUT -p tcp -m multiport --dports 80,443 -j f2b-nginx\n-A f2b-nginx -s 198.51.100.4/32 -j REJECT --reject-with icmp-port-unreachable\n-A f2b-nginx -j RETURN\n-A INPUT -s 127.0.0.0/8 ! -i lo -j DROP\nCOMMIT\n";
    const NATIVE: &str = "table inet f2b-table {\n\tset addr-set-sshd {\n\t\ttype ipv4_addr\n\t\telements = { 198.51.100.9 }\n\t}\n\tchain f2b-chain {\n\t\ttype filter hook input priority filter - 1; policy accept;\n\t\ttcp dport 22 ip saddr @addr-set-sshd reject with icmp port-unreachable\n\t}\n}\n";
    const CROWDSEC: &str = "table ip crowdsec {\n\tchain crowdsec-chain-input {\n\t\ttype filter hook input priority -10; policy accept;\n\t\tip saddr @crowdsec-blacklists drop\n\t}\n}\n";
    const REDIRECT: &str = "table ip nat {\n\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\ttcp dport { 80, 443 } dnat to 10.1.1.1\n\t}\n}\n";

    fn codes(firewall: Vec<Rule>) -> Vec<(&'static str, String)> {
        let config = crate::config::parse(Path::new("test.toml"), TEXT)
            .config
            .unwrap();
        let network = Network {
            links: vec![Link {
                name: String::from("eth0"),
                ifindex: 2,
                kind: LinkKind::L2,
                wireguard: false,
                mac: None,
                mtu: 1_500,
                up: true,
                addresses: vec!["203.0.113.7".parse().unwrap()],
            }],
            ..Network::default()
        };
        let firewall = Firewall { rules: firewall };
        let found = check(&config, &network, &firewall).into_iter();
        found
            .map(|own| (own.code, own.message + &own.label))
            .collect()
    }

    #[test]
    fn ports_that_are_translated_elsewhere_are_found() {
        for (text, who) in [
            (HOSTPORT, "Kubernetes"),
            (EXTERNAL, "Kubernetes"),
            (DOCKER, "Docker"),
        ] {
            let found = codes(iptables(text));
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!(found[0].0, "takes-translated");
            assert!(found[0].1.contains(who), "{found:?}");
        }
        assert_eq!(codes(nft(REDIRECT))[0].0, "takes-translated");
        assert_eq!(
            codes(iptables(K3S)),
            [],
            "of cluster addresses, and outward"
        );
        let other = EXTERNAL.replace("203.0.113.7", "203.0.113.8");
        assert_eq!(codes(iptables(&other)), []);
        let other = DOCKER.replace("--dport 443", "--dport 8443");
        assert_eq!(codes(iptables(&other)), []);
    }

    #[test]
    fn bans_that_do_not_hold_are_found() {
        for rules in [iptables(FAIL2BAN), nft(CROWDSEC)] {
            let found = codes(rules);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, "firewall-passed-by");
        }
        assert!(codes(iptables(FAIL2BAN))[0].1.contains("f2b-nginx"));
        assert_eq!(codes(nft(NATIVE)), [], "of another port");
    }

    #[test]
    fn prefixes_hold_addresses() {
        let holds = |ip: &str, network: &str| {
            let (network, bits) = prefix(network).unwrap();
            within(ip.parse().unwrap(), network, bits)
        };
        assert!(holds("203.0.113.7", "203.0.113.0/24") && holds("203.0.113.7", "0.0.0.0/0"));
        assert!(!holds("203.0.113.7", "203.0.113.8") && !holds("203.0.113.7", "::/0"));
        assert!(holds("2001:db8::7", "2001:db8::/32"));
    }
}
