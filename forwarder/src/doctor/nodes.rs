//! The nodes' servers: reached, asked as their pool asks them and the other way, and tried with names that are not
//! theirs to serve.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use forwarder_common::name::PatternKind;
use futures_util::future::join_all;
use rustls::ClientConfig;

use super::catalog::Code;
use super::certificate;
use super::configuration;
use super::finding::{Finding, Fix};
use super::patient::Patient;
use super::probe::{Preface, Way, with_large_hello};
use super::routes::WireGuards;
use super::second_hello::{self, Second};
use super::wireguard::{Peer, SESSION};
use crate::config::model::{ClientAddress, Node, Pattern, Pool};
use crate::health::check::CheckError;
use crate::health::tls::Trust;

/// The option in each segment (RFC 7323).
const TIMESTAMPS: u32 = 12;

/// Names looked at for each pool; there may be a hundred thousand.
const NAMES: usize = 8;
/// A host that nobody lists: `.invalid` is never in DNS (RFC 6761 6.4).
const UNKNOWN_HOST: &str = "forwarder-doctor.invalid";
/// Below it, a name that a wildcard stands for.
const UNDER_WILDCARD: &str = "forwarder-doctor";
/// What an ingress says that serves no such host: not found, misdirected request (RFC 9110 15.5.20).
const NOT_SERVED: [u16; 2] = [404, 421];

/// What the examinations of all nodes share.
struct Kit<'a> {
    patient: &'a Patient<'a>,
    wireguards: &'a WireGuards,
    /// Hosts that must not be reached by a listed name.
    private: &'a [String],
    trust: Trust,
    large: Arc<ClientConfig>,
}

/// Findings about every node that is not in `blocked`.
pub async fn examine(
    patient: &Patient<'_>,
    wireguards: &WireGuards,
    blocked: &BTreeSet<IpAddr>,
    private: &[String],
) -> Vec<Finding> {
    let trust = match Trust::new(true) {
        Ok(trust) => trust,
        Err(error) => {
            let why = format!("no TLS: {error}");
            return vec![Finding::skipped(Code::NodeTls, "", why)];
        }
    };
    let large = with_large_hello(&trust.http);
    let kit = Kit {
        patient,
        wireguards,
        private,
        trust,
        large,
    };
    let all = patient
        .nodes()
        .map(|(pool, node)| kit.visit(pool, node, blocked));
    join_all(all).await.into_iter().flatten().collect()
}

/// `k3s/thinkpad`
fn subject(pool: &Pool, node: &Node) -> String {
    format!("{}/{}", pool.name.get_ref(), node.name)
}

impl Kit<'_> {
    async fn visit(&self, pool: &Pool, node: &Node, blocked: &BTreeSet<IpAddr>) -> Vec<Finding> {
        let ip = node.address.get_ref().ip();
        let tunnel = self.patient.tunnel_towards(ip);
        let Some(tunnel) = tunnel.filter(|_| !blocked.contains(&ip)) else {
            let why = "no way leads to it, see above";
            let subject = subject(pool, node);
            return vec![Finding::skipped(Code::NodeUnreachable, subject, why)];
        };
        let way = Way {
            node: *node.address.get_ref(),
            interface: tunnel.name.clone(),
            segment: None,
        };
        self.examine(pool, node, &way).await
    }

    async fn examine(&self, pool: &Pool, node: &Node, way: &Way) -> Vec<Finding> {
        let subject = subject(pool, node);
        let begin = std::time::Instant::now();
        match way.connect().await {
            Ok(_) => {}
            Err(error) => return self.unreachable(&subject, way, &error),
        }
        let took = begin.elapsed().as_secs_f64() * 1e3;
        let seen = format!("accepts connections, in {took:.1} ms");
        let mut findings = vec![Finding::ok(Code::NodeUnreachable, subject.as_str(), seen)];
        let names = self.names(pool);
        let Some(first) = names.first().cloned().or_else(|| self.stand_in(pool)) else {
            let why = "no name is routed to this pool, or only `*`: `health.server_name` gives one";
            findings.push(Finding::skipped(Code::NodeTls, subject, why));
            return findings;
        };
        let first = first.as_str();
        let (greeting, fit) = self.greet(pool, &subject, way, first).await;
        findings.push(greeting);
        if !fit {
            return findings;
        }
        let preface = preface(pool);
        findings.push(self.large_hello(&subject, way, preface, first).await);
        findings.extend(self.certificates(&subject, way, preface, &names).await);
        findings.extend(self.fronting(pool, &subject, way, first).await);
        findings.extend(self.second_hellos(pool, &subject, way, first).await);
        findings
    }

    fn unreachable(&self, subject: &str, way: &Way, error: &CheckError) -> Vec<Finding> {
        let (ip, port) = (way.node.ip(), way.node.port());
        let refused = matches!(error, CheckError::Connect(error)
            if error.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused {
            let seen = format!("{} refuses connections: nothing listens there", way.node);
            return vec![
                Finding::failure(Code::NodeUnreachable, subject, seen).fix(Fix::node(format!(
                    "start its server; `ss -ltn 'sport = :{port}'` shows whether it listens on {ip} or on all addresses"
                ))),
            ];
        }
        let wireguard = self.wireguards.get(&way.interface);
        let peer = wireguard.and_then(|own| own.peer_of(ip));
        if let Some(silent) = peer.and_then(silence) {
            let endpoint = peer.and_then(|own| own.endpoint.as_deref());
            let seen = format!(
                "its WireGuard peer {} {silent}",
                endpoint.map_or_else(
                    || String::from("has no endpoint yet and"),
                    |at| format!("at {at}")
                )
            );
            let why = "its tunnel has no handshake, see routes";
            return vec![
                Finding::failure(Code::Handshake, subject, seen)
                    .fix(Fix::node(
                        "`wg show`: is the tunnel up, is the entrance's public key right, does UDP to its port get through? `PersistentKeepalive = 25` keeps a node behind NAT reachable",
                    )),
                Finding::skipped(Code::NodeUnreachable, subject, why),
            ];
        }
        let seen = format!("{}: {error}", way.node);
        vec![
            Finding::failure(Code::NodeUnreachable, subject, seen)
                .fix(Fix::node(format!(
                    "is it up, and does its firewall let {} in? `ping -c 3 -I {} {ip}` from here tells whether the tunnel works",
                    port, way.interface
                ))),
        ]
    }

    /// A handshake as the pool makes it. If that fails and the other way succeeds, the node and the pool do not
    /// agree about the PROXY header. Says too whether clients are served.
    async fn greet(&self, pool: &Pool, subject: &str, way: &Way, name: &str) -> (Finding, bool) {
        let own = preface(pool);
        let asked = way.handshake(own, name, &self.trust.http).await;
        let error = match asked {
            Ok(session) => {
                session.close().await;
                let seen = match own {
                    Preface::Bare => String::from("finishes a TLS handshake"),
                    Preface::Proxy => self.enforced(way, name).await,
                };
                return (Finding::ok(Code::NodeTls, subject, seen), true);
            }
            Err(error) => error,
        };
        if matches!(error, CheckError::Timeout(_)) {
            let small = way.in_small_segments();
            if let Ok(session) = small.handshake(own, name, &self.trust.http).await {
                session.close().await;
                return (self.lost_answer(subject, way), false);
            }
        }
        let other = way.handshake(own.other(), name, &self.trust.http).await;
        let Ok(session) = other else {
            let seen = format!("no TLS handshake for {name}: {error}");
            let openssl = format!(
                "its TLS server, for this name; `{}` shows from here what it says",
                certificate::show(way.node, name, own)
            );
            // A name that we made up below a wildcard, a server may refuse with reason.
            let finding = if self.names(pool).is_empty() {
                let name = "or give a name that it serves: `health = { server_name = \"…\" }`";
                Finding::warning(Code::NodeTls, subject, seen).fix(Fix::advice(name))
            } else {
                Finding::failure(Code::NodeTls, subject, seen)
            };
            return (finding.fix(Fix::node(openssl)), false);
        };
        session.close().await;
        let line = |value| {
            configuration::line(
                self.patient.report,
                &pool.name.span(),
                "client_address",
                value,
            )
        };
        let finding = match own {
            Preface::Proxy => {
                let source = self.patient.network.egress.get(&way.node.ip());
                let source = source.and_then(|way| way.source);
                let source = source.map_or_else(|| String::from("ENTRANCE"), |own| own.to_string());
                Finding::failure(
                    Code::ProxyNotExpected,
                    subject,
                    format!("answers without a PROXY header, and not with one: {error}"),
                )
                .fix(Fix::node(format!(
                    "switch PROXY protocol on: nginx `listen 443 ssl proxy_protocol;`, HAProxy `bind :443 accept-proxy`, Traefik `--entryPoints.websecure.proxyProtocol.trustedIPs={source}`"
                )))
                .fix(line("\"masquerade\""))
            }
            Preface::Bare => Finding::failure(
                Code::ProxyRequired,
                subject,
                format!("answers with a PROXY header only; without one: {error}"),
            )
            .fix(line("\"proxy-v2\"")),
        };
        (finding, false)
    }

    /// Of a node that takes the header: whether it insists.
    async fn enforced(&self, way: &Way, name: &str) -> String {
        match way.handshake(Preface::Bare, name, &self.trust.http).await {
            Err(_) => {
                String::from("finishes a TLS handshake after a PROXY header, and insists on it")
            }
            Ok(session) => {
                session.close().await;
                String::from(
                    "finishes a TLS handshake with a PROXY header and without: it takes the header but does not insist, \
                     so whoever else reaches this port in the tunnel may leave it out",
                )
            }
        }
    }

    /// Large packets of the node do not arrive: in small ones it answers.
    fn lost_answer(&self, subject: &str, way: &Way) -> Finding {
        let mtu = self.patient.mtu_towards(way.node.ip()).unwrap_or_default();
        let seen = format!(
            "its answer is lost, and arrives in small segments: packets of {mtu} bytes do not pass from the node to here"
        );
        let least = format!("ip link set dev {} mtu 1280", way.interface);
        Finding::failure(Code::MtuBlackHole, subject, seen)
            .fix(Fix::here(least))
            .fix(Fix::node("the same MTU for its end of the tunnel"))
    }

    async fn large_hello(&self, subject: &str, way: &Way, preface: Preface, name: &str) -> Finding {
        let mtu = self.patient.mtu_towards(way.node.ip()).unwrap_or_default();
        match way.handshake(preface, name, &self.large).await {
            Ok(session) => {
                let headers = if way.node.is_ipv4() { 40 } else { 60 };
                let full = mtu.saturating_sub(headers + TIMESTAMPS);
                let back = match session.largest_received() {
                    Some(largest) if largest >= full => {
                        String::from(", and so do packets of full size from the node")
                    }
                    Some(largest) => format!(
                        "; from the node nothing larger than {largest} bytes came, which shows nothing about larger ones"
                    ),
                    None => String::new(),
                };
                session.close().await;
                let seen = format!("a ClientHello of 2 KB passes, with an MTU of {mtu}{back}");
                Finding::ok(Code::MtuBlackHole, subject, seen)
            }
            Err(CheckError::Timeout(_)) => {
                let seen = format!(
                    "a ClientHello of 2 KB is lost where a small one is answered: packets of {mtu} bytes do not pass"
                );
                let least = format!("ip link set dev {} mtu 1280", way.interface);
                Finding::failure(Code::MtuBlackHole, subject, seen)
                    .fix(Fix::here(least))
                    .fix(Fix::node("the same MTU for its end of the tunnel"))
            }
            Err(error) => {
                let why = format!("the server does not like the padded hello: {error}");
                Finding::skipped(Code::MtuBlackHole, subject, why)
            }
        }
    }

    async fn certificates(
        &self,
        subject: &str,
        way: &Way,
        preface: Preface,
        names: &[String],
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut earliest = None;
        let mut fine = 0;
        let server = (way.node, preface);
        for name in names {
            let session = match way.handshake(preface, name, &self.trust.http).await {
                Ok(session) => session,
                Err(error) => {
                    let seen = format!("no TLS handshake for {name}: {error}");
                    findings.push(
                        Finding::failure(Code::NodeTls, subject, seen)
                            .fix(Fix::node(format!("serve {name} there, too"))),
                    );
                    continue;
                }
            };
            let now = SystemTime::now();
            let (wrong, expires) =
                certificate::judge(&self.trust, &session.chain, name, server, now);
            session.close().await;
            fine += usize::from(wrong.is_empty());
            findings.extend(wrong);
            earliest = earliest.into_iter().chain(expires).min();
        }
        if fine > 0 {
            let date = earliest.map_or_else(String::new, |at| {
                format!(
                    ", the first expires at {}",
                    humantime::format_rfc3339_seconds(at)
                )
            });
            let seen = format!("valid for {fine} of {} names{date}", names.len());
            findings.push(Finding::ok(Code::CertificateName, subject, seen));
        }
        findings
    }

    /// A listed name in the hello, another one in `Host:`.
    async fn fronting(&self, pool: &Pool, subject: &str, way: &Way, name: &str) -> Vec<Finding> {
        let patterns = || self.patient.config.routes.iter().flat_map(|own| &own.names);
        let lists = |host: &str| patterns().any(|own| own.matches(host));
        if lists(UNKNOWN_HOST) {
            let why = "every name is listed: nothing is private";
            return vec![Finding::skipped(Code::Fronting, subject, why)];
        }
        let ask = async |host: &str| -> Result<u16, CheckError> {
            let tls = &self.trust.http;
            let session = way.handshake(preface(pool), name, tls).await?;
            session.ask(host).await
        };
        let unknown = match ask(UNKNOWN_HOST).await {
            Ok(status) => status,
            Err(error) => {
                let why = format!("it was not asked: {error}");
                return vec![Finding::skipped(Code::Fronting, subject, why)];
            }
        };
        let mut findings = Vec::new();
        for host in self.private {
            if lists(host) {
                let why = format!("{host} is listed, and so not private");
                findings.push(Finding::skipped(Code::Fronting, subject, why));
                continue;
            }
            findings.push(match ask(host).await {
                Ok(status) => private(subject, name, host, status, unknown),
                Err(error) => {
                    let seen = format!("{host} behind {name} is not served: {error}");
                    Finding::ok(Code::Fronting, subject, seen)
                }
            });
        }
        findings.push(unlisted(subject, name, unknown, self.private.is_empty()));
        findings
    }

    /// A listed name in the first hello, another one in the second.
    async fn second_hellos(
        &self,
        pool: &Pool,
        subject: &str,
        way: &Way,
        name: &str,
    ) -> Vec<Finding> {
        let patterns = || self.patient.config.routes.iter().flat_map(|own| &own.names);
        let others = self
            .private
            .iter()
            .map(String::as_str)
            .chain([UNKNOWN_HOST]);
        let others = others.filter(|host| !patterns().any(|own| own.matches(host)));
        let Some(other) = others.into_iter().next() else {
            let why = "every name is listed: nothing is private";
            return vec![Finding::skipped(Code::SecondHello, subject, why)];
        };
        let send =
            async |second: &str| second_hello::try_out(way, preface(pool), name, second).await;
        // First as it should be.
        let why = match send(name).await {
            Ok(Second::GoesOn) => None,
            Ok(Second::NotAsked(how)) => Some(format!("it asks for no second hello: {how}")),
            Ok(Second::Refused(how)) => Some(format!("no second hello is to its liking: {how}")),
            Err(error) => Some(format!("it was not asked: {error}")),
        };
        if let Some(why) = why {
            return vec![Finding::skipped(Code::SecondHello, subject, why)];
        }
        vec![match send(other).await {
            Ok(Second::GoesOn) if other == UNKNOWN_HOST => {
                let seen = format!(
                    "goes on after a second hello with another name than {name}, which the entrance judged; \
                     `--private-host` tells whether something private is reached that way"
                );
                Finding::ok(Code::SecondHello, subject, seen)
            }
            Ok(Second::GoesOn) => match self.serves(pool, way, other).await {
                Ok(status) if !NOT_SERVED.contains(&status) => {
                    let seen = format!(
                        "{other} is reached by a second hello after the entrance judged {name}: the node goes on, and \
                         serves it here with status {status}"
                    );
                    Finding::warning(Code::SecondHello, subject, seen).fix(separate_port())
                }
                _ => {
                    let seen = format!(
                        "goes on after a second hello for {other} behind {name}, and serves nothing under that name"
                    );
                    Finding::ok(Code::SecondHello, subject, seen)
                }
            },
            Ok(Second::Refused(how) | Second::NotAsked(how)) => {
                let seen = format!("a second hello for {other} behind {name} is refused: {how}");
                Finding::ok(Code::SecondHello, subject, seen)
            }
            Err(error) => {
                let why = format!("it was not asked: {error}");
                Finding::skipped(Code::SecondHello, subject, why)
            }
        }]
    }

    /// What a host gets that is named in the only hello and in the request.
    async fn serves(&self, pool: &Pool, way: &Way, host: &str) -> Result<u16, CheckError> {
        let tls = &self.trust.http;
        let session = way.handshake(preface(pool), host, tls).await?;
        session.ask(host).await
    }

    /// Exact names routed to the pool.
    fn names(&self, pool: &Pool) -> Vec<String> {
        let exact = self
            .patterns(pool)
            .filter(|own| own.kind() == PatternKind::Exact);
        exact.map(|own| own.name().to_owned()).take(NAMES).collect()
    }

    /// A name for a pool without exact ones: that of its checks, or one below a wildcard.
    fn stand_in(&self, pool: &Pool) -> Option<String> {
        let below = || {
            let mut patterns = self.patterns(pool);
            let wildcard = patterns.find(|own| own.kind() == PatternKind::Wildcard)?;
            Some(format!("{UNDER_WILDCARD}.{}", wildcard.name()))
        };
        pool.health.server_name.clone().or_else(below)
    }

    fn patterns(&self, pool: &Pool) -> impl Iterator<Item = &Pattern> {
        let config = self.patient.config;
        config
            .routes
            .iter()
            .filter(move |route| std::ptr::eq(&config.pools[route.pool], pool))
            .flat_map(|route| &route.names)
    }
}

/// What the pool sends before a hello.
fn preface(pool: &Pool) -> Preface {
    match pool.client_address {
        ClientAddress::ProxyV2 => Preface::Proxy,
        ClientAddress::Transparent | ClientAddress::Masquerade => Preface::Bare,
    }
}

/// What to say of a peer without a session; `None` if it has one.
fn silence(peer: &Peer) -> Option<String> {
    match peer.silent_for() {
        None => Some(String::from("has never shaken hands")),
        Some(silent) if silent > SESSION => Some(format!(
            "was last heard {} ago",
            humantime::format_duration(std::time::Duration::from_secs(silent.as_secs()))
        )),
        Some(_) => None,
    }
}

fn separate_port() -> Fix {
    Fix::node(
        "give public names an ingress port of their own that knows no private one (docs/k3s.md), and let the pool's nodes be that port",
    )
}

/// A host that is said to be private. An error that an unknown host gets too says nothing about it.
fn private(subject: &str, name: &str, host: &str, status: u16, unknown: u16) -> Finding {
    let is_refused = NOT_SERVED.contains(&status) || (status >= 400 && status == unknown);
    if is_refused {
        let seen = format!("{host} behind {name} is not served: status {status}");
        return Finding::ok(Code::Fronting, subject, seen);
    }
    let seen = format!(
        "{host} is reached by whoever sends {name} in the hello: status {status}, where 404 or 421 would refuse"
    );
    Finding::failure(Code::Fronting, subject, seen).fix(separate_port())
}

fn unlisted(subject: &str, name: &str, status: u16, nothing_private: bool) -> Finding {
    if status >= 400 {
        let seen = format!("a host that nobody lists, behind {name}, gets status {status}");
        return Finding::ok(Code::FrontingUnknown, subject, seen);
    }
    let seen = format!(
        "a host that nobody lists, behind {name}, gets status {status}: some site answers to any"
    );
    let finding = Finding::warning(Code::FrontingUnknown, subject, seen);
    if nothing_private {
        finding.fix(Fix::here(
            "forwarder doctor --private-host NAME-OF-A-PRIVATE-SITE",
        ))
    } else {
        finding.fix(separate_port())
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn served_is_what_gets_more_than_an_unknown_host() {
        let verdict = |status, unknown| private("n", "a", "b", status, unknown).verdict;
        assert_eq!(verdict(200, 404), Verdict::Failure);
        assert_eq!(verdict(302, 404), Verdict::Failure, "to its log-in page");
        assert_eq!(verdict(401, 404), Verdict::Failure);
        assert_eq!(verdict(200, 200), Verdict::Failure, "no telling apart");
        assert_eq!(verdict(404, 200), Verdict::Ok);
        assert_eq!(verdict(421, 404), Verdict::Ok);
        assert_eq!(verdict(503, 503), Verdict::Ok, "as for every unknown host");
    }

    #[test]
    fn a_peer_without_a_session_is_silent() {
        let peer = |seconds: Option<u64>| Peer {
            key: String::from("k"),
            endpoint: None,
            allowed: Vec::new(),
            handshake: seconds
                .map(|seconds| SystemTime::now() - std::time::Duration::from_secs(seconds)),
        };
        assert!(silence(&peer(None)).is_some());
        assert!(silence(&peer(Some(3_600))).unwrap().contains("1h"));
        assert_eq!(silence(&peer(Some(20))), None);
    }
}
