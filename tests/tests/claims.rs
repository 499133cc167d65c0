//! Claims that go while flows are open, and hooks that somebody else takes away.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::{output, run};
use forwarder_tests::error::Context;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::{PATIENCE, RawTcp};
use forwarder_tests::server::recorder::Connection;
use forwarder_tests::site::{Site, configuration};

const SOON: Duration = Duration::from_secs(60);

fn start() -> Site {
    Site::build(Lab::builder().clients(2).tunnel(TunnelKind::Ethernet, 2))
}

/// A word each way.
fn talk(site: &Site, (raw, node): &mut (RawTcp, Connection), sent: &mut usize) -> Result<()> {
    raw.send_data(b"up")?;
    *sent += 2;
    assert!(site.recorded(raw, *sent)?.bytes.ends_with(b"up"));
    node.send(b"down")?;
    assert_eq!(raw.read(4, PATIENCE)?, b"down");
    Ok(())
}

#[test]
fn a_listener_that_moves_keeps_its_flows() -> Result<()> {
    let mut site = start();
    for family in Family::BOTH {
        let mut flow = site.established(family)?;
        let mut sent = flow.1.bytes.len();
        talk(&site, &mut flow, &mut sent)?;
        let moved = configuration(site.lab).replace("port = 443\n", "port = 8443\n");
        assert_ne!(moved, configuration(site.lab));
        site.forwarder.write_config(&moved)?;
        run(site.forwarder.command()?.arg("reload"))?;
        talk(&site, &mut flow, &mut sent)?;
        let said = site.forwarder.status_text()?;
        assert!(said.contains("closing") && said.contains(":443"), "{said}");
        // A new connection is the host's: it has no socket there, then one.
        let mut refused = site.raw(family, 443)?;
        assert!(refused.connect().is_err(), "nobody listens");
        let at = site.entrance(family, 443);
        let listen = || TcpListener::bind(at);
        let host = site.lab.entrance.enter(listen)?;
        let host = host.context(|| format!("listening on {at}"))?;
        let mut own = site.raw(family, 443)?;
        own.connect()?;
        let (mut socket, _) = host.accept().context(|| "accepting".to_owned())?;
        socket
            .write_all(b"the host")
            .context(|| "writing".to_owned())?;
        assert_eq!(own.read(8, PATIENCE)?, b"the host");
        drop((host, socket));
        talk(&site, &mut flow, &mut sent)?;
        // Over a restart, too, and until it ends.
        site.forwarder.stop();
        site.forwarder.run()?;
        talk(&site, &mut flow, &mut sent)?;
        let reset = flow.0.segment(Flags::RST);
        flow.0.send(&reset)?;
        wait_until("the claim being gone", SOON, || {
            site.forwarder
                .status_text()
                .is_ok_and(|said| !said.contains("closing"))
        })?;
        site.forwarder.write_config(&configuration(site.lab))?;
        run(site.forwarder.command()?.arg("reload"))?;
        assert_eq!(site.report(family, "www.example.org")?.server, "node0");
    }
    Ok(())
}

/// RFC 4862 5.5.4: a deprecated address serves what there is, and new connections as well.
#[test]
fn a_deprecated_address_stays_claimed() -> Result<()> {
    let site = start();
    let mut flow = site.established(Family::V6)?;
    let mut sent = flow.1.bytes.len();
    let address = format!("{}/64", site.lab.public(Family::V6));
    let mut ip = site.lab.entrance.command("ip")?;
    ip.args(["-6", "addr", "change", &address, "dev", "eth0"]);
    run(ip.args(["valid_lft", "3600", "preferred_lft", "0"]))?;
    let mut shown = site.lab.entrance.command("ip")?;
    let shown = run(shown.args(["-6", "addr", "show", "dev", "eth0"]))?;
    assert!(shown.contains("deprecated"), "{shown}");
    std::thread::sleep(Duration::from_secs(2));
    talk(&site, &mut flow, &mut sent)?;
    assert_eq!(site.report(Family::V6, "www.example.org")?.server, "node0");
    Ok(())
}

#[test]
fn a_program_that_somebody_detaches_comes_back() -> Result<()> {
    let mut site = start();
    let mut flow = site.established(Family::V4)?;
    let mut sent = flow.1.bytes.len();
    // The links of both sides, one after the other, as `bpftool link detach` does it.
    for side in ["public", "tunnel"] {
        let interface = if side == "public" { "eth0" } else { "lan0" };
        let found = || {
            site.forwarder
                .log()
                .matches("somebody has detached")
                .count()
        };
        let before = found();
        detach(&site, side)?;
        wait_until("the program being back", SOON, || {
            found() > before && attached(&site, interface).is_ok_and(|now| now == 1)
        })?;
        talk(&site, &mut flow, &mut sent)?;
    }
    let log = site.forwarder.log();
    assert!(log.matches("somebody has detached").count() >= 2, "{log}");
    // Without a daemon nobody attaches it again, and nobody says that it is attached.
    site.forwarder.stop();
    detach(&site, "public")?;
    wait_until("the link being gone", SOON, || {
        attached(&site, "eth0").is_ok_and(|now| now == 0)
    })?;
    let status = site.forwarder.status()?;
    let attachments = status["attachments"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(
        attachments.iter().all(|own| own["interface"] != "eth0"),
        "{attachments:?}"
    );
    let doctor = output(site.forwarder.command()?.arg("doctor"))?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("detached by somebody else"), "{said}");
    Ok(())
}

/// How many programs of ours stand at an interface's TCX hook.
fn attached(site: &Site, interface: &str) -> Result<usize> {
    use aya::programs::tc::{SchedClassifier, TcAttachType};
    let query = || SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    let found = site.lab.entrance.enter(query)?;
    Ok(found.map_or(0, |(_, programs)| programs.len()))
}

/// Detaches the TCX links of a side without touching their pins.
fn detach(site: &Site, side: &str) -> Result<()> {
    let links = site.forwarder.bpffs().join("v6/links");
    let files = std::fs::read_dir(&links).context(|| format!("listing {}", links.display()))?;
    for file in files.flatten() {
        if file.file_name().to_string_lossy().starts_with(side) {
            force_detach(&file.path())?;
        }
    }
    Ok(())
}

/// `BPF_LINK_DETACH` of the link that is pinned there.
fn force_detach(path: &std::path::Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    const BPF_OBJ_GET: libc::c_int = 7;
    const BPF_LINK_DETACH: libc::c_int = 34;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    let mut get = [name.as_ptr() as u64, 0];
    // SAFETY: `pathname` of `union bpf_attr` comes first and leads to a string; the rest is zero.
    let link = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, get.as_mut_ptr(), 16) };
    assert!(
        link >= 0,
        "{}: {}",
        path.display(),
        std::io::Error::last_os_error()
    );
    let mut detach = [link as u32];
    // SAFETY: `link_detach.link_fd` of `union bpf_attr` is the first word.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, detach.as_mut_ptr(), 4) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: this function's own descriptor.
    unsafe { libc::close(link as i32) };
    Ok(())
}

#[test]
fn a_changed_bpffs_stacks_no_second_forwarder() -> Result<()> {
    let mut site = start();
    site.forwarder.stop();
    let mut second = site
        .lab
        .entrance
        .command(forwarder_tests::forwarder::program()?)?;
    second.arg("--config").arg(site.forwarder.config());
    second
        .arg("--bpffs")
        .arg(site.lab.bpffs().join("elsewhere"));
    second.arg("--run-dir").arg(site.lab.folder().join("run"));
    let second = output(second.arg("run"))?;
    assert_eq!(second.status.code(), Some(78));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        said.contains("unload --bpffs") && said.contains("eth0"),
        "{said}"
    );
    site.forwarder.run()?;
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    Ok(())
}
