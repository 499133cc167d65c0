//! Claimed ports and who had them; ports towards nodes.

use std::fs;
use std::ops::RangeInclusive;

use super::catalog::Code;
use super::configuration;
use super::finding::{Finding, Fix, Verdict};
use super::patient::Patient;
use crate::config::claim;
use crate::config::diagnostic::Diagnostic;
use crate::config::firewall::{self, Firewall};
use crate::config::model::{ClientAddress, Listener};
use crate::config::own_sockets::{self, Holder, OwnSockets, Taken};

/// Findings about ports; `local` are those of this machine's own connections.
pub fn judge(
    patient: &Patient<'_>,
    own: &OwnSockets,
    local: Option<&RangeInclusive<u16>>,
) -> Vec<Finding> {
    let taken = own_sockets::taken(patient.config, &patient.network, own);
    let mut findings: Vec<_> = taken.iter().map(|taken| describe(patient, taken)).collect();
    for (at, listener) in patient.config.listeners.iter().enumerate() {
        let free = taken
            .iter()
            .all(|taken| !std::ptr::eq(taken.listener, listener));
        if free {
            findings.push(claimed(patient, at, listener));
        }
    }
    findings.extend(netfilter(patient));
    findings.extend(local.and_then(|local| source_ports(patient, local)));
    findings
}

fn claimed(patient: &Patient<'_>, at: usize, listener: &Listener) -> Finding {
    let name = listener.name.get_ref();
    let claimed = claim::claimed(patient.config, &patient.network, at);
    if claimed.is_empty() {
        return Finding::skipped(Code::ClaimedPorts, name, "it claims no address now");
    }
    let on: Vec<_> = claimed.iter().map(ToString::to_string).collect();
    let seen = format!(
        "port {} of {}; nothing else listens there",
        listener.port,
        on.join(", ")
    );
    Finding::ok(Code::ClaimedPorts, name, seen)
}

fn describe(patient: &Patient<'_>, taken: &Taken<'_>) -> Finding {
    let listener = taken.listener;
    let (name, port) = (listener.name.get_ref(), listener.port);
    let other_port = || {
        let at = listener.name.span();
        let other = if port == 443 { "8443" } else { "443" };
        configuration::line(patient.report, &at, "port", other)
    };
    match taken.from {
        Holder::Ssh(socket) => {
            let seen = format!(
                "port {port} is that of your SSH session ({socket}): you would lock yourself out"
            );
            Finding::failure(Code::TakesSsh, name, seen)
                .fix(other_port())
                .fix(Fix::advice(
                    "or list `addresses` without the one you are connected to",
                ))
        }
        Holder::Program(socket) => {
            let holder = Process::of(socket.inode);
            let who = holder.as_ref().map_or_else(
                || String::from("a program that cannot be seen"),
                |own| format!("{} (process {})", own.name, own.pid),
            );
            let seen = format!(
                "{who} listens on {}: clients would not reach it any more",
                socket.address
            );
            let stop = match holder {
                Some(own) => Fix::here(own.stop()),
                None => Fix::here(format!("ss -ltnp 'sport = {port}'")),
            };
            Finding::failure(Code::TakesSocket, name, seen)
                .fix(stop)
                .fix(other_port())
        }
    }
}

/// Translations that lose their port to a listener, and bans that do not hold for it.
fn netfilter(patient: &Patient<'_>) -> Vec<Finding> {
    let firewall = Firewall::here();
    let found = firewall::check(patient.config, &patient.network, &firewall);
    let finding = |own: Diagnostic| {
        let code = Code::from_word(own.code)?;
        let verdict = match code {
            Code::TakesTranslated => Verdict::Failure,
            _ => Verdict::Warning,
        };
        let seen = format!("{}: {}", own.message, own.label);
        let finding = Finding::new(verdict, code, "", seen);
        let fixes = own.help.into_iter().map(Fix::advice);
        Some(fixes.fold(finding, Finding::fix))
    };
    found.into_iter().filter_map(finding).collect()
}

/// The process that holds a socket.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    name: String,
    /// Its unit, if systemd started it as the main process of a service.
    unit: Option<String>,
}

impl Process {
    /// The process with the lowest number that holds the socket of this inode: of a server that forks, the first.
    fn of(inode: u64) -> Option<Self> {
        let target = format!("socket:[{inode}]");
        let numbers = fs::read_dir("/proc").ok()?.flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        let holds = |pid: &u32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd"));
            files.is_ok_and(|files| {
                files.flatten().any(|file| {
                    fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*target)
                })
            })
        };
        let pid = numbers.into_iter().find(holds)?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let started_by_systemd = parent(pid) == Some(1);
        let unit = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
        Some(Self {
            pid,
            name: name.trim().to_owned(),
            unit: unit
                .as_deref()
                .and_then(service)
                .filter(|_| started_by_systemd),
        })
    }

    /// The command that ends it.
    fn stop(&self) -> String {
        match &self.unit {
            Some(unit) => format!("systemctl disable --now {unit}"),
            None => format!("kill {}", self.pid),
        }
    }
}

/// `PPid` of `proc_pid_status(5)`.
fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// `0::/system.slice/nginx.service` is `nginx.service`.
fn service(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = path.strip_prefix("/system.slice/")?;
    (unit.ends_with(".service") && !unit.contains('/')).then(|| unit.to_owned())
}

fn source_ports(patient: &Patient<'_>, local: &RangeInclusive<u16>) -> Option<Finding> {
    let pools = &patient.config.pools;
    pools
        .iter()
        .find(|pool| pool.client_address != ClientAddress::Transparent)?;
    let ports = &patient.config.entrance.source_ports;
    let own = ports.get_ref();
    let ranges = format!(
        "{}-{} towards nodes, {}-{} for this machine's own connections",
        own.start(),
        own.end(),
        local.start(),
        local.end()
    );
    if own.start() > local.end() || local.start() > own.end() {
        return Some(Finding::ok(Code::SourcePorts, "", ranges));
    }
    let mut finding = Finding::failure(
        Code::SourcePorts,
        "",
        format!(
            "{ranges}: they overlap, so that a client's connection may meet one of this machine"
        ),
    );
    // The machine's own connections above ours, if that leaves them enough.
    if *own.end() < 50_000 {
        let (first, last) = (u32::from(*own.end()) + 1, 60_999);
        finding = finding.fix(Fix::here(format!(
            "sysctl -w net.ipv4.ip_local_port_range='{first} {last}'"
        )));
    }
    if *local.start() > 2_048 {
        let value = format!("\"1024-{}\"", local.start() - 1);
        let line = configuration::line(patient.report, &ports.span(), "source_ports", &value);
        finding = finding.fix(line);
    }
    if finding.fixes.is_empty() {
        finding = finding.fix(Fix::advice(
            "set `source_ports` and `sysctl net.ipv4.ip_local_port_range` apart",
        ));
    }
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_socket_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let here = OwnSockets::here();
        let own = here.listening.iter().find(|own| own.address == address);
        let process = Process::of(own.unwrap().inode).unwrap();
        assert_eq!(process.pid, std::process::id());
        assert!(process.stop().starts_with("kill ") || process.unit.is_some());
        assert_eq!(Process::of(u64::MAX), None);
    }

    #[test]
    fn only_services_of_the_system_are_units() {
        let unit = |text: &str| service(text);
        assert_eq!(
            unit("0::/system.slice/nginx.service\n").as_deref(),
            Some("nginx.service")
        );
        assert_eq!(unit("0::/system.slice/docker.service/x\n"), None);
        assert_eq!(unit("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(unit(""), None);
    }
}
