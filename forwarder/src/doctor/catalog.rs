//! Every check that `forwarder doctor` makes: its code, its area, what it looks at and what mends it. The
//! page `docs/doctor.md` is made of this table.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use super::verdict::Verdict;

/// What a check is about; findings are shown in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The kernel and this process's rights.
    Kernel,
    /// The configuration file.
    Configuration,
    /// Interfaces and their addresses.
    Interfaces,
    /// Packet sizes.
    Mtu,
    /// Ways to nodes.
    Routes,
    /// Claimed ports, and ports towards nodes.
    Ports,
    /// Nodes and their servers.
    Nodes,
    /// The daemon and what is loaded.
    Daemon,
}

impl Area {
    /// In the order in which they are shown.
    pub const ALL: &[Self] = &[
        Self::Kernel,
        Self::Configuration,
        Self::Interfaces,
        Self::Mtu,
        Self::Routes,
        Self::Ports,
        Self::Nodes,
        Self::Daemon,
    ];

    /// The word in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Configuration => "configuration",
            Self::Interfaces => "interfaces",
            Self::Mtu => "mtu",
            Self::Routes => "routes",
            Self::Ports => "ports",
            Self::Nodes => "nodes",
            Self::Daemon => "daemon",
        }
    }
}

/// Declares [`Code`] and [`ALL`] from one table, so that no code lacks its line in the documentation.
macro_rules! checks {
    ($($variant:ident, $word:literal, $area:ident, $worst:ident, $looks:literal, $mend:literal;)*) => {
        /// Which check. The words are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $looks] $variant,)*
        }

        /// Every check, by area.
        pub const ALL: &[Check] = &[
            $(Check {
                code: Code::$variant,
                word: $word,
                area: Area::$area,
                worst: Verdict::$worst,
                looks: $looks,
                mend: $mend,
            },)*
        ];
    };
}

/// A check as documented.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its code.
    pub code: Code,
    /// The code's word.
    pub word: &'static str,
    /// What it is about.
    pub area: Area,
    /// The worst it can find.
    pub worst: Verdict,
    /// What is looked at.
    pub looks: &'static str,
    /// What mends it.
    pub mend: &'static str,
}

checks! {
    KernelVersion, "kernel-version", Kernel, Failure,
        "Linux 5.10 or newer; 6.6 or newer is better (TCX)",
        "a newer kernel from the distribution";
    Privileges, "privileges", Kernel, Failure,
        "this process may load and attach programs: CAP_BPF (or CAP_SYS_ADMIN), CAP_NET_ADMIN and CAP_PERFMON",
        "`sudo forwarder doctor`";
    BpfSyscall, "bpf-syscall", Kernel, Failure,
        "the kernel has the bpf system call",
        "a kernel with `CONFIG_BPF_SYSCALL=y`";
    Jit, "bpf-jit", Kernel, Warning,
        "programs are compiled and not interpreted",
        "`sysctl -w net.core.bpf_jit_enable=1`";
    Btf, "btf", Kernel, Warning,
        "the kernel describes its types; the forwarder does not need it, bpftool does",
        "a kernel with `CONFIG_DEBUG_INFO_BTF=y`";
    Lockdown, "lockdown", Kernel, Warning,
        "whether kernel lockdown stands in the way",
        "boot without `lockdown=confidentiality`, if programs do not load";
    Memlock, "memlock", Kernel, Failure,
        "locked memory, against which maps count before Linux 5.11",
        "`ulimit -l unlimited`; the packaged unit has `LimitMEMLOCK=infinity`";
    Bpffs, "bpffs", Kernel, Failure,
        "a bpf file system is mounted where programs are pinned",
        "`mount -t bpf bpf /sys/fs/bpf`";
    ProgramsLoad, "programs-load", Kernel, Failure,
        "the kernel takes the embedded programs: they are loaded once, small, and let go of",
        "what the verifier says; please report it";
    ProgramsAttach, "programs-attach", Kernel, Failure,
        "TCX or clsact: a program is attached to the loopback interface of a throw-away network namespace",
        "a kernel with `CONFIG_NET_CLS_ACT=y` and `CONFIG_NET_CLS_BPF`; `modprobe sch_ingress cls_bpf`";
    Clock, "clock", Kernel, Failure,
        "the time of day is plausible and synchronised: certificates are judged by it",
        "`timedatectl set-ntp true`";

    ConfigMissing, "config-missing", Configuration, Failure,
        "there is a configuration file",
        "`forwarder init`";
    Config, "configuration", Configuration, Failure,
        "the file has no errors; `forwarder check` shows each in its place",
        "the line that the finding names";

    MissingInterface, "missing-interface", Interfaces, Failure,
        "each interface in `public` and `tunnels` exists",
        "start the tunnel (`wg-quick up wg0`), or correct the name";
    UnsupportedInterface, "unsupported-interface", Interfaces, Failure,
        "each interface is Ethernet or plain IP",
        "use another interface";
    InterfaceDown, "interface-down", Interfaces, Failure,
        "each interface is up",
        "`ip link set dev wg0 up`";
    Interface, "interface", Interfaces, Ok,
        "what each interface is: kind, MTU, driver, queues, addresses",
        "";
    NoPublicAddress, "no-public-address", Interfaces, Failure,
        "listeners without `addresses` get one from a public interface",
        "give the interface an address, or name `addresses`";
    ForeignAddress, "foreign-address", Interfaces, Warning,
        "addresses of listeners are those of public interfaces; floating and routed ones are not",
        "correct `addresses`";
    NativeXdp, "native-xdp", Interfaces, Ok,
        "whether the driver of a public interface is known to run XDP natively; without it the TC hook serves all",
        "";

    GroList, "gro-list", Interfaces, Failure,
        "no interface hands TCP segments on as lists (`rx-gro-list`, off by default): only the first of a list would be translated (Linux 6.10 or newer)",
        "`ethtool -K eth0 rx-gro-list off`, and whatever switched it on";

    SmallMtu, "small-mtu", Mtu, Failure,
        "MTUs carry IPv6 and whole segments of a ClientHello: 1280 or more",
        "`ip link set dev wg0 mtu 1420`";
    TunnelMtu, "tunnel-mtu", Mtu, Warning,
        "a tunnel's packets fit the public interface with 60 or 80 bytes of WireGuard around them",
        "`ip link set dev wg0 mtu 1420`";
    Segments, "segments", Mtu, Ok,
        "the segment size that clients are told, and how many segments a 2 KB hello takes towards the nodes",
        "";
    MtuBlackHole, "mtu-black-hole", Mtu, Failure,
        "a ClientHello of 2 KB, as browsers send it, reaches the node and is answered like a small one; the node's answer arrives in full segments",
        "`ip link set dev wg0 mtu 1280`, on the node too";

    NoTunnel, "no-tunnel", Routes, Failure,
        "the kernel's route to each node leads through a tunnel of the configuration",
        "`ip route replace 10.0.0.2/32 dev wg0`, or add the interface to `tunnels`";
    LocalNode, "local-node", Routes, Failure,
        "no node is this machine itself",
        "the node's own address in the tunnel";
    NoSourceAddress, "no-source-address", Routes, Failure,
        "`proxy-v2` and `masquerade` have an address to speak to the node from",
        "give the tunnel an address of the node's family";
    NodeFamily, "node-family", Routes, Warning,
        "clients of each address family find a node of their own",
        "add the nodes' addresses of that family; one without any node is not claimed, so that clients try the other";
    AllowedIps, "allowed-ips", Routes, Failure,
        "a peer of the WireGuard tunnel holds the node's address in its AllowedIPs",
        "`wg set wg0 peer … allowed-ips …`, and the same in the tunnel's configuration file";
    Handshake, "handshake", Routes, Failure,
        "the WireGuard peer of a node that does not answer has shaken hands within three minutes",
        "compare keys, endpoint and firewall (UDP) of both ends";
    TransparentTailscale, "transparent-tailscale", Routes, Failure,
        "no `transparent` pool is behind Tailscale, which drops foreign source addresses",
        "`client_address = \"proxy-v2\"`";
    TransparentReturn, "transparent-return", Routes, Failure,
        "whether nodes of `transparent` pools send answers back into the tunnel: seen by the daemon once clients have tried",
        "[AllowedIPs and the return route of the node](node-transparent.md)";
    ReversePath, "rp-filter", Routes, Ok,
        "reverse-path filters: a strict one does no harm here, packets of flows are taken before it",
        "";
    Forwarding, "ip-forwarding", Routes, Ok,
        "IP forwarding and netfilter: neither is needed, nor passed by flows",
        "";

    TakesSsh, "takes-ssh", Ports, Failure,
        "no listener claims the port of the SSH session this runs in",
        "another `port`, or `addresses` without that one";
    TakesSocket, "takes-socket", Ports, Failure,
        "no program of this machine listens on a claimed port",
        "stop the program (its unit or process id is named), or another `port`";
    TakesTranslated, "takes-translated", Ports, Failure,
        "no rule of netfilter translates a claimed port to a container or another machine (Docker, a hostPort, k3s ServiceLB)",
        "another `port` or other `addresses`, or take the port away from the other";
    FirewallPassedBy, "firewall-passed-by", Ports, Warning,
        "no rule of netfilter drops sources (fail2ban, CrowdSec): claimed ports are taken before it",
        "ban at the provider's firewall, or at the nodes by the address of the PROXY header";
    ClaimedPorts, "claimed-ports", Ports, Ok,
        "what is claimed",
        "";
    SourcePorts, "source-ports-shared", Ports, Failure,
        "ports towards nodes are apart from `net.ipv4.ip_local_port_range`",
        "`sysctl -w net.ipv4.ip_local_port_range=…`, or `source_ports`";

    NodeUnreachable, "node-unreachable", Nodes, Failure,
        "each node accepts a connection through its tunnel",
        "start its server; look at the tunnel";
    NodeTls, "node-tls", Nodes, Failure,
        "each node finishes a TLS handshake for a listed name, asked as the pool asks it",
        "the node's TLS server";
    ProxyNotExpected, "proxy-not-expected", Nodes, Failure,
        "nodes of `proxy-v2` pools read a PROXY header",
        "switch PROXY protocol on at the node (nginx, HAProxy, Traefik), or `client_address = \"masquerade\"`";
    ProxyRequired, "proxy-required", Nodes, Failure,
        "nodes of other pools do not insist on a PROXY header",
        "`client_address = \"proxy-v2\"`";
    CertificateExpired, "certificate-expired", Nodes, Failure,
        "certificates have not expired; a warning comes 14 days before",
        "renew it on the node";
    CertificateName, "certificate-name", Nodes, Failure,
        "the certificate that a node shows for a listed name is valid for that name",
        "a certificate for the name on the node, or take the name off the route";
    CertificateTrust, "certificate-trust", Nodes, Warning,
        "certificates lead to an authority that this machine trusts",
        "a public authority's certificate; fine with an authority of your own";
    Fronting, "fronting", Nodes, Failure,
        "a listed name with a private `Host:` (`--private-host`) is not served",
        "an ingress port of its own for public names";
    SecondHello, "second-hello", Nodes, Warning,
        "a second ClientHello (after HelloRetryRequest) with a private name (`--private-host`) is refused, or leads to nothing: the entrance judges the first",
        "an ingress port of its own for public names";
    FrontingUnknown, "fronting-unknown", Nodes, Warning,
        "a listed name with a `Host:` that nobody lists is refused (404 or 421)",
        "`forwarder doctor --private-host NAME` tells whether a private name is reached that way";

    Daemon, "daemon", Daemon, Warning,
        "the daemon runs",
        "`systemctl enable --now forwarder`, or `forwarder run`";
    OtherVersion, "other-version", Daemon, Failure,
        "nothing is pinned by another version of the forwarder",
        "`forwarder unload`";
    NotAttached, "not-attached", Daemon, Failure,
        "while the daemon runs, every interface has its program",
        "`forwarder reload`";
    Armour, "armour", Daemon, Warning,
        "whether public interfaces have the XDP filter attached (`xdp`), and why a driver refused it",
        "[what the driver wants](operate.md#under-attack), or `xdp = \"off\"`: floods are then left to the other programs";
    NotInUse, "not-in-use", Daemon, Warning,
        "the daemon uses what the file says",
        "`forwarder reload`";
    NodeDown, "node-down", Daemon, Failure,
        "the daemon takes every node that its operator did not take out to work",
        "what the daemon says of the node: its last check, or clients' connections; `forwarder node ls`";
    PoolEmpty, "pool-empty", Daemon, Failure,
        "each pool has a node that takes new connections",
        "bring a node back, or `forwarder node ready NAME`";
    Unit, "unit", Daemon, Warning,
        "systemd starts the daemon at boot",
        "`systemctl enable forwarder`";
}

impl Code {
    fn check(self) -> &'static Check {
        // In the order of the enumeration, as both are made of one table.
        &ALL[self as usize]
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        self.check().word
    }

    /// Its area.
    pub fn area(self) -> Area {
        self.check().area
    }

    /// The code of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        let found = ALL.iter().find(|check| check.word == word);
        found.map(|check| check.code)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

const INTRODUCTION: &str = "\
# `forwarder doctor`

```console
# forwarder doctor
# forwarder doctor --private-host grafana.home.example.org
# forwarder doctor --json | jq '.findings[] | select(.verdict == \"failure\") | {code, subject, fixes}'
```

It looks at everything a connection depends on: the kernel, the file, interfaces, routes, ports, the nodes and their
servers, the daemon. Each finding is one line of what was seen; each failure comes with the command or the configuration
line that mends it. Where several are shown, any one of them does. Nothing is changed on this machine: programs are loaded
once to see whether the kernel takes them, and let go of (`--no-trial` leaves that out). Nodes get a handful of connections; `--offline` leaves
them alone. The exit code is 0 if there is no failure, 1 if there is one, 2 if the command line is wrong.

`--json` writes `failures`, `warnings` and `findings`, each with `area`, `code`, `verdict` (`ok`, `skipped`, `warning`,
`failure`), `subject` (an interface, a node, a name), `seen` and `fixes`. A fix says `where`: `here` (with `command`, for a
root shell on this machine), `config` (with `file`, `line`, `text`), `node` or `advice` (with `text`). Codes are stable.

What cannot be seen from the entrance: what the provider's firewall does, and whether DNS points here. Whether a node of a
`transparent` pool sends its answers back through the tunnel is seen once clients have tried, by the daemon.

This page is made from the source; do not edit it.
";

/// `docs/doctor.md`.
pub fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    for area in Area::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "\n## {}\n\n| code | worst | looks at | mended by |\n|---|---|---|---|",
            area.word()
        );
        for check in ALL.iter().filter(|check| check.area == *area) {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                check.word,
                check.worst.word(),
                check.looks,
                check.mend
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");

    #[test]
    fn codes_are_words_of_their_own() {
        for (index, check) in ALL.iter().enumerate() {
            assert_eq!(check.code as usize, index);
            assert_eq!(Code::from_word(check.word), Some(check.code));
        }
    }

    /// `UPDATE=1 cargo test -p forwarder doctor` writes the page anew.
    #[test]
    fn the_page_is_up_to_date() {
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(PAGE, page()).unwrap();
        }
        let written = std::fs::read_to_string(PAGE).unwrap_or_default();
        assert_eq!(
            written,
            page(),
            "run `UPDATE=1 cargo test -p forwarder doctor`"
        );
    }
}
