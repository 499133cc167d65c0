//! The daemon, what is loaded, and whether it is what the file says.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use serde_spanned::Spanned;

use super::catalog::Code;
use super::finding::{Finding, Fix};
use super::patient::Patient;
use crate::config::Config;
use crate::config::model::Xdp;
use crate::control::client::{Client, ClientError};
use crate::dataplane::bpf::hooks;
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::registry;
use crate::dataplane::upgrade::predecessor::Predecessor;
use crate::instance::lock::Lock;
use crate::instance::paths::Paths;
use crate::units;
use crate::xdp::report::Report;

/// The unit of the package.
const UNIT: &str = "forwarder.service";

/// Findings about the daemon of the instance at `place`. `patient` is absent if the configuration cannot be
/// used.
pub fn judge(place: &Paths, patient: Option<&Patient<'_>>) -> Vec<Finding> {
    let pins = Pins::new(place.bpffs());
    let holder = Lock::holder(&place.lock());
    let mut findings = vec![running(holder.as_deref(), &pins)];
    findings.extend(versions(&pins));
    // Programs stand there without a daemon, too, or do not although one left them.
    if let Some(patient) = patient.filter(|_| holder.is_some() || pins.exists()) {
        findings.extend(attached(place, patient));
    }
    if let (Some(patient), Some(_)) = (patient, &holder) {
        let report = Report::load(&place.xdp()).unwrap_or_default();
        findings.extend(xdp_filter(&report, patient.config));
        findings.push(in_use(place, patient.config));
        findings.extend(super::serving::judge(place));
    }
    findings.push(unit());
    findings
}

fn running(holder: Option<&str>, pins: &Pins) -> Finding {
    let start = || {
        if Path::new("/run/systemd/system").exists() {
            Fix::here("systemctl enable --now forwarder")
        } else {
            Fix::here("forwarder run")
        }
    };
    match (holder, pins.exists()) {
        (Some(pid), _) => Finding::ok(Code::Daemon, "", format!("process {pid}")),
        (None, true) => Finding::warning(
            Code::Daemon,
            "",
            "not running; the programs serve on their own, as configured last",
        )
        .fix(start()),
        (None, false) => {
            Finding::warning(Code::Daemon, "", "not running, and nothing is loaded").fix(start())
        }
    }
}

/// Trees of another version than this program's.
fn versions(pins: &Pins) -> Option<Finding> {
    let versions = match pins.versions() {
        Ok(versions) => versions,
        Err(error) => {
            let why = format!("{error}");
            return Some(Finding::skipped(Code::OtherVersion, "", why));
        }
    };
    let own = pins.stages();
    let other = versions.iter().find(|path| !own.starts_with(path));
    let other = other.filter(|path| path.join("links").is_dir())?;
    if Predecessor::at(other).is_some() {
        let seen = format!(
            "the flows of {} are taken over by a daemon of this version",
            other.display()
        );
        return Some(Finding::ok(Code::OtherVersion, "", seen));
    }
    let seen = format!("{} is of another version", other.display());
    Some(
        Finding::failure(Code::OtherVersion, "", seen)
            .fix(Fix::here("forwarder unload --yes"))
            .fix(Fix::advice(
                "open flows end with it; the version that made it goes on with them until then",
            )),
    )
}

/// Interfaces that are there and have no program.
fn attached(place: &Paths, patient: &Patient<'_>) -> Vec<Finding> {
    let registry = match registry::file::load(&place.registry()) {
        Ok(registry) => registry.unwrap_or_default(),
        Err(error) => {
            return vec![Finding::skipped(Code::NotAttached, "", error.to_string())];
        }
    };
    let mut findings = Vec::new();
    let pins = Pins::new(place.bpffs());
    let standing = hooks::look_now(registry.attachments.iter());
    for (side, name) in patient.interfaces() {
        if !patient.is_there(name) {
            continue;
        }
        let mut all = registry.attachments.iter().zip(&standing);
        let own = all.find(|(own, _)| own.interface == name && own.side.word() == side_word(side));
        let seen = own.and_then(|(own, standing)| Some((own, standing.as_ref()?)));
        if let Some((own, standing)) = seen {
            let id = standing.own(&pins, own);
            let before: Vec<_> = id
                .map_or(&[][..], |id| standing.before(id))
                .iter()
                .collect();
            if id.is_none() {
                let seen = "the program was detached by somebody else: packets are not looked at";
                findings.push(
                    Finding::failure(Code::NotAttached, name, seen)
                        .fix(Fix::here("systemctl restart forwarder")),
                );
                continue;
            }
            let foreign: Vec<_> = before.iter().map(|own| own.name.as_str()).collect();
            if !foreign.is_empty() {
                let seen = format!(
                    "packets meet {} first: what that lets through to the host (TC_ACT_OK, TCX_PASS) never gets here",
                    foreign.join(", ")
                );
                findings.push(Finding::warning(Code::NotAttached, name, seen).fix(Fix::advice(
                    "let it return TC_ACT_UNSPEC for what it does not decide, or attach it behind",
                )));
                continue;
            }
        }
        findings.push(match own.map(|(own, _)| own) {
            Some(own) => {
                let hook = format!("{:?}", own.hook).to_lowercase();
                Finding::ok(
                    Code::NotAttached,
                    name,
                    format!("has its program, by {hook}"),
                )
            }
            None => Finding::failure(
                Code::NotAttached,
                name,
                "no program of the forwarder is attached: its packets are not looked at",
            )
            .fix(Fix::here("forwarder reload")),
        });
    }
    findings
}

/// Whether the XDP filter is attached, or would be.
fn xdp_filter(report: &Report, config: &Config) -> Vec<Finding> {
    let entrance = &config.entrance;
    if entrance.xdp == Xdp::Off {
        return vec![Finding::ok(Code::Armour, "", "off, as the file says")];
    }
    let judge = |name: &String| {
        let mut all = report.interfaces.iter();
        let own = all.find(|own| own.interface == *name);
        if let Some(why) = own.and_then(|own| own.refusal.as_deref()) {
            let seen = format!("refused: {why}");
            return Finding::warning(Code::Armour, name, seen).fix(Fix::advice(
                "docs/operate.md says what drivers want; xdp = \"off\" in [entrance] leaves floods to the other programs, at a higher cost",
            ));
        }
        let seen = match (own.is_some_and(|own| own.attached_now), entrance.xdp) {
            (true, _) => String::from("on"),
            (false, Xdp::Auto) => format!(
                "off; goes on above {} unproven segments a second",
                entrance.xdp_above
            ),
            (false, _) => String::from("off so far"),
        };
        Finding::ok(Code::Armour, name, seen)
    };
    let names = entrance.public.iter().map(Spanned::get_ref);
    names.map(judge).collect()
}

fn side_word(side: &str) -> &'static str {
    if side == "public" { "public" } else { "tunnel" }
}

/// Whether names, listeners and nodes in use are those of the file.
fn in_use(place: &Paths, config: &Config) -> Finding {
    let client = Client::new(&place.control());
    let ask = |what: &str| client.ask::<Value>("GET", &format!("/v1/{what}"), None);
    let answers = || -> Result<[Value; 4], ClientError> {
        Ok([
            ask("routes")?,
            ask("listeners")?,
            ask("nodes")?,
            ask("status")?,
        ])
    };
    let [routes, listeners, nodes, status] = match answers() {
        Ok(answers) => answers,
        Err(error) => {
            return Finding::skipped(Code::NotInUse, "", format!("{error}"));
        }
    };
    let edits = status["edits"].as_array().map_or(0, Vec::len);
    let used = used(&routes, &listeners, &nodes);
    let filed = filed(config);
    let differing = filed
        .iter()
        .filter(|(key, value)| used.get(*key) != Some(value));
    let gone = used.keys().filter(|key| !filed.contains_key(*key));
    let mut all = differing.map(|(key, _)| key).chain(gone);
    let first = all.next();
    let more = all.count();
    match (first, edits) {
        (None, _) => Finding::ok(Code::NotInUse, "", "what the file says is in use"),
        (Some(first), 0) => {
            let rest = if more > 0 {
                format!(", and {more} more")
            } else {
                String::new()
            };
            let seen = format!("the file has changed since it was read: {first}{rest}");
            Finding::warning(Code::NotInUse, "", seen).fix(Fix::here("forwarder reload"))
        }
        (Some(_), edits) => Finding::ok(
            Code::NotInUse,
            "",
            format!(
                "{} at run time in use beside the file; `forwarder status` lists them",
                units::count(edits as u64, "edit")
            ),
        ),
    }
}

/// What the daemon says, each thing as a key and what it is.
fn used(routes: &Value, listeners: &Value, nodes: &Value) -> BTreeMap<String, String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = BTreeMap::new();
    for route in list(routes, "routes") {
        for name in list(&route, "names") {
            all.insert(format!("name {}", text(&name)), text(&route["pool"]));
        }
    }
    for own in list(listeners, "listeners") {
        let key = format!("listener {}", text(&own["name"]));
        all.insert(key, own["port"].to_string());
    }
    for own in list(nodes, "nodes") {
        let key = format!("node {}/{}", text(&own["pool"]), text(&own["address"]));
        all.insert(key, own["weight"].to_string());
    }
    all
}

/// The same of the file.
fn filed(config: &Config) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for route in &config.routes {
        let pool = config.pools[route.pool].name.get_ref();
        for name in &route.names {
            all.insert(format!("name {name}"), pool.clone());
        }
    }
    for own in &config.listeners {
        let key = format!("listener {}", own.name.get_ref());
        all.insert(key, own.port.to_string());
    }
    for pool in &config.pools {
        for node in &pool.nodes {
            let key = format!("node {}/{}", pool.name.get_ref(), node.address.get_ref());
            all.insert(key, node.weight.to_string());
        }
    }
    all
}

fn unit() -> Finding {
    if !Path::new("/run/systemd/system").exists() {
        return Finding::skipped(Code::Unit, "", "systemd does not run here");
    }
    let said = Command::new("systemctl")
        .args(["is-enabled", UNIT])
        .output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match said.as_deref() {
        Ok("enabled") => Finding::ok(Code::Unit, UNIT, "enabled"),
        Ok("" | "not-found") => {
            let seen = "not installed: nothing starts the forwarder at boot";
            Finding::warning(Code::Unit, UNIT, seen).fix(Fix::advice(
                "install the package, or packaging/forwarder.service to /etc/systemd/system",
            ))
        }
        Ok(state) => Finding::warning(Code::Unit, UNIT, format!("{state}: not started at boot"))
            .fix(Fix::here("systemctl enable forwarder")),
        Err(error) => Finding::skipped(Code::Unit, UNIT, format!("systemctl: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    const TEXT: &str = include_str!("../../tests/check/fine.toml");

    #[test]
    fn the_file_and_its_use_are_compared_alike() {
        let config = crate::config::parse(Path::new("fine.toml"), TEXT)
            .config
            .unwrap();
        let filed = filed(&config);
        assert!(filed.keys().any(|key| key.starts_with("name ")));
        let routes = config.routes.iter().map(|route| {
            let names: Vec<_> = route.names.iter().map(ToString::to_string).collect();
            serde_json::json!({"names": names, "pool": config.pools[route.pool].name.get_ref()})
        });
        let listeners = config.listeners.iter();
        let listeners =
            listeners.map(|own| serde_json::json!({"name": own.name.get_ref(), "port": own.port}));
        let nodes = config.pools.iter().flat_map(|pool| {
            pool.nodes.iter().map(|node| {
                serde_json::json!({
                    "pool": pool.name.get_ref(),
                    "address": node.address.get_ref().to_string(),
                    "weight": node.weight,
                })
            })
        });
        let used = used(
            &serde_json::json!({"routes": routes.collect::<Vec<_>>()}),
            &serde_json::json!({"listeners": listeners.collect::<Vec<_>>()}),
            &serde_json::json!({"nodes": nodes.collect::<Vec<_>>()}),
        );
        assert_eq!(used, filed);
    }

    #[test]
    fn a_refused_xdp_filter_is_a_warning_with_the_driver_s_reason() {
        let text =
            |xdp: &str| TEXT.replacen("[entrance]", &format!("[entrance]\nxdp = {xdp:?}"), 1);
        let config = |xdp| {
            crate::config::parse(Path::new("fine.toml"), text(xdp))
                .config
                .unwrap()
        };
        let mut report = Report::default();
        let name = config("auto").entrance.public[0].get_ref().clone();
        let one = |report: &Report, xdp| xdp_filter(report, &config(xdp))[0].clone();
        let waits = one(&report, "auto");
        assert_eq!(waits.verdict, Verdict::Ok);
        assert!(waits.seen.contains("goes on above"), "{}", waits.seen);
        report.entry(&name).refusal = Some(String::from("Too few free TX rings available"));
        let refused = one(&report, "auto");
        assert_eq!(refused.verdict, Verdict::Warning);
        assert!(refused.seen.contains("Too few free TX rings"));
        assert_eq!(refused.fixes.len(), 1);
        assert_eq!(one(&report, "off").verdict, Verdict::Ok);
        let own = report.entry(&name);
        (own.refusal, own.attached_now) = (None, true);
        assert_eq!(one(&report, "on").seen, "on");
    }

    #[test]
    fn a_tree_of_another_version_is_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(directory.path());
        assert!(versions(&pins).is_none());
        std::fs::create_dir_all(directory.path().join("v999/links")).unwrap();
        let finding = versions(&pins).unwrap();
        assert_eq!(finding.verdict, Verdict::Failure);
        std::fs::remove_dir_all(directory.path().join("v999")).unwrap();
        std::fs::create_dir_all(pins.stages().parent().unwrap().join("links")).unwrap();
        assert!(versions(&pins).is_none(), "its own version");
    }
}
