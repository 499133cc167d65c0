//! `cargo xtask test`: every check and every test ring, in the order of what fails cheapest.
//!
//! One stage is one function. Stages that need root build as the caller and only run the built
//! programs as root. The last line counts stages; each test runner prints its own counts before.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::dist::{self, Effort};
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, debian, debian_root, deny, lab, privilege, process, vm};

/// The crate with the lab and everything that needs root.
const LAB_CRATE: &str = "forwarder-tests";
const LAB_CRATE_FOLDER: &str = "tests";

/// The daemon's crate, whose integration tests need no root but for one.
const DAEMON: &str = "forwarder";
const LOADING_TESTS: &str = "dataplane";

/// Test programs of the lab's crate that need the package and machines to install it on.
const PACKAGE_TESTS: &[&str] = &["package", "quickstart"];

/// Arguments of `test`.
#[derive(Args)]
pub struct Arguments {
    /// Leave out what takes long: dependency check, everything with root, virtual machine.
    #[arg(long)]
    quick: bool,
    /// Go on after a failed stage.
    #[arg(long)]
    keep_going: bool,
    /// Run only these stages (set-up is assumed).
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
    /// How many test programs of the lab run at a time, but for those that measure.
    #[arg(long, default_value_t = lab::usual_lanes())]
    lanes: usize,
}

/// The stages, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Stage {
    /// Install what is missing.
    Setup,
    /// `cargo fmt --check`.
    Format,
    /// Build the kernel programs.
    Bpf,
    /// clippy, warnings are errors, kernel programs included.
    Lint,
    /// Licences, bans and sources of all dependencies.
    Dependencies,
    /// Unit, property and documentation tests; no root.
    Unit,
    /// Verifier budget, and the daemon's side of loading and pinning; root.
    Kernel,
    /// `BPF_PROG_TEST_RUN` tables and namespace tests; root.
    Lab,
    /// The Debian package installed, upgraded and purged, and the quick starts followed; root.
    Package,
    /// The main job on a distribution kernel.
    Vm,
}

impl Stage {
    const ALL: [Self; 10] = [
        Self::Setup,
        Self::Format,
        Self::Bpf,
        Self::Lint,
        Self::Dependencies,
        Self::Unit,
        Self::Kernel,
        Self::Lab,
        Self::Package,
        Self::Vm,
    ];

    fn is_quick(self) -> bool {
        !matches!(
            self,
            Self::Dependencies | Self::Kernel | Self::Lab | Self::Package | Self::Vm
        )
    }

    fn title(self) -> &'static str {
        match self {
            Self::Setup => "set-up",
            Self::Format => "format",
            Self::Bpf => "kernel programs",
            Self::Lint => "clippy",
            Self::Dependencies => "dependencies",
            Self::Unit => "unit and property tests",
            Self::Kernel => "loading and verifier (root)",
            Self::Lab => "program tables and lab (root)",
            Self::Package => "package on Debian machines (root)",
            Self::Vm => "virtual machine",
        }
    }

    fn run(self, workspace: &Workspace, arguments: &Arguments) -> Result<()> {
        match self {
            Self::Setup if arguments.quick => setup::prepare(workspace, Purpose::Build),
            Self::Setup => setup::prepare(workspace, Purpose::Test),
            Self::Format => format(workspace),
            Self::Bpf => build::kernel_programs(workspace),
            Self::Lint => lint(workspace),
            Self::Dependencies => deny::check(workspace),
            Self::Unit => unit(workspace),
            Self::Kernel => kernel(workspace),
            Self::Lab => lab(workspace, arguments.lanes),
            Self::Package => package(workspace),
            Self::Vm => vm::run(workspace, &vm::Arguments::tested()),
        }
    }
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let stages: Vec<Stage> = Stage::ALL
        .into_iter()
        .filter(|stage| !arguments.quick || stage.is_quick())
        .filter(|stage| arguments.only.is_empty() || arguments.only.contains(stage))
        .collect();

    let mut done: Vec<(Stage, Duration, Result<()>)> = Vec::new();
    for stage in &stages {
        println!("\n=== {} ===", stage.title());
        let started = Instant::now();
        let result = stage.run(workspace, arguments);
        if let Err(error) = &result {
            eprintln!("\n{} failed: {}", stage.title(), process::causes(error));
        }
        let stop = result.is_err() && !arguments.keep_going;
        done.push((*stage, started.elapsed(), result));
        if stop {
            break;
        }
    }
    summary(&done, stages.len())
}

fn summary(done: &[(Stage, Duration, Result<()>)], planned: usize) -> Result<()> {
    println!("\n=== summary ===");
    for (stage, elapsed, result) in done {
        let word = if result.is_ok() { "passed" } else { "FAILED" };
        println!(
            "  {word}  {:>7.1} s  {}",
            elapsed.as_secs_f32(),
            stage.title()
        );
    }
    let failed = done.iter().filter(|(_, _, result)| result.is_err()).count();
    let passed = done.len() - failed;
    println!(
        "stages: {passed} passed, {failed} failed, {} skipped",
        planned - done.len()
    );
    if failed > 0 {
        bail!("{failed} of {planned} stages failed");
    }
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace.root());
        cargo
    };
    process::run(cargo().args(["fmt", "--all", "--check"]))?;
    for manifest in ["forwarder-ebpf/Cargo.toml", "fuzz/Cargo.toml"] {
        process::run(cargo().args(["fmt", "--manifest-path", manifest, "--check"]))?;
    }
    Ok(())
}

fn lint(workspace: &Workspace) -> Result<()> {
    process::run(
        Command::new("cargo")
            .args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])
            .current_dir(workspace.root()),
    )?;
    process::run(
        build::bpf_cargo(workspace, "clippy")
            .arg("--release")
            .arg("--target-dir")
            .arg(workspace.target().join("bpf-build"))
            .args(["--", "-D", "warnings"]),
    )
}

/// Two runs, because one test program of the daemon loads programs and so belongs to [`kernel`].
fn unit(workspace: &Workspace) -> Result<()> {
    let crates = ["--workspace", "--exclude", LAB_CRATE, "--exclude", DAEMON];
    process::run(test_runner(workspace).args(crates))?;

    let mut daemon = test_runner(workspace);
    daemon.args(["--package", DAEMON, "--lib", "--bins"]);
    for program in test_programs(workspace, DAEMON)? {
        if program != LOADING_TESTS {
            daemon.args(["--test", &program]);
        }
    }
    process::run(&mut daemon)?;

    process::run(
        Command::new("cargo")
            .args(["test", "--doc", "--workspace", "--exclude", LAB_CRATE])
            .current_dir(workspace.root()),
    )
}

fn kernel(workspace: &Workspace) -> Result<()> {
    privilege::ask("loading kernel programs")?;
    let mut tests = test_runner(workspace);
    tests.args(["--package", DAEMON, "--test", LOADING_TESTS]);
    process::run(as_root(&mut tests))?;

    let mut budget = Command::new("cargo");
    budget
        .args([
            "run",
            "--quiet",
            "--package",
            LAB_CRATE,
            "--bin",
            "verifier-budget",
        ])
        .current_dir(workspace.root());
    process::run(as_root(&mut budget))
}

/// Everything in the lab's crate but for what needs the package; within a program one test at a time, for the machine is
/// one.
fn lab(workspace: &Workspace, lanes: usize) -> Result<()> {
    privilege::ask("the lab (network namespaces, loading kernel programs)")?;
    build::user_programs(workspace, false)?;
    let mut cargo = lab_tests(workspace);
    cargo.arg("--lib");
    let mut wanted = test_programs(workspace, LAB_CRATE_FOLDER)?;
    wanted.retain(|name| !PACKAGE_TESTS.contains(&name.as_str()));
    for name in &wanted {
        cargo.args(["--test", name]);
    }
    let programs = lab::build(&mut cargo)?;
    let is_built = |name: &&String| programs.iter().any(|own| own.name == **name);
    if let Some(name) = wanted.iter().find(|name| !is_built(name)) {
        bail!("Cargo told of no test program `{name}`");
    }
    let folder = workspace.root().join(LAB_CRATE_FOLDER);
    lab::run(workspace, &folder, programs, lanes)
}

/// The package of the daemon (`FORWARDER_BIN` names one that is built already), on machines that are made of
/// a fresh Debian. Two revisions, for an upgrade.
fn package(workspace: &Workspace) -> Result<()> {
    privilege::ask("installing the package on Debian machines")?;
    let root = debian_root::provide(workspace)?;
    let daemon = match std::env::var_os("FORWARDER_BIN") {
        Some(daemon) => daemon.into(),
        None => build::daemon(workspace)?,
    };
    let first = dist::package(workspace, &daemon, 1, Effort::Quick)?;
    let second = dist::package(workspace, &daemon, 2, Effort::Quick)?;
    let mut tests = lab_tests(workspace);
    for program in PACKAGE_TESTS {
        tests.args(["--test", program]);
    }
    tests
        .args(["--", "--test-threads", "1"])
        .env("FORWARDER_DEBIAN_ROOT", root)
        .env("FORWARDER_DEB", first)
        .env("FORWARDER_DEB_NEWER", second);
    process::run(as_root(&mut tests))
}

fn lab_tests(workspace: &Workspace) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["test", "--no-fail-fast", "--package", LAB_CRATE])
        .current_dir(workspace.root());
    cargo
}

/// Lets Cargo build as the caller and start what it built as root.
fn as_root(cargo: &mut Command) -> &mut Command {
    match privilege::runner() {
        Some(runner) => cargo.env(runner_variable(), runner),
        None => cargo,
    }
}

/// The names of a crate's integration tests.
fn test_programs(workspace: &Workspace, package: &str) -> Result<Vec<String>> {
    let folder = workspace.root().join(package).join("tests");
    let mut names = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        let is_program =
            path.join("main.rs").exists() || path.extension().is_some_and(|it| it == "rs");
        if let Some(name) = path.file_stem().filter(|_| is_program) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// `cargo nextest run` where it is installed, `cargo test` elsewhere.
fn test_runner(workspace: &Workspace) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace.root());
    if has_nextest() {
        cargo.args(["nextest", "run", "--no-fail-fast", "--no-tests", "fail"]);
    } else {
        cargo.args(["test", "--no-fail-fast", "--all-targets"]);
    }
    cargo
}

fn has_nextest() -> bool {
    debian::machine_program("cargo-nextest", std::path::Path::new("")).is_some()
}

/// The variable that names what Cargo starts test programs with on this kind of machine.
pub fn runner_variable() -> String {
    format!(
        "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER",
        std::env::consts::ARCH.to_uppercase()
    )
}
