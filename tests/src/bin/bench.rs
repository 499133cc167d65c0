//! `cargo xtask bench`: the forwarder beside everything that could stand in its place.
//!
//! Prints tables; standard error tells how it goes. See [`forwarder_tests::bench`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use forwarder_tests::bench::contender::{self, CONTROL, Contender, YARDSTICK};
use forwarder_tests::bench::plan::{self, Plan};
use forwarder_tests::bench::record::Run;
use forwarder_tests::bench::report::{page, table};
use forwarder_tests::bench::workload::{self, Scale, Workload};
use forwarder_tests::cleanup;
use forwarder_tests::error::Result;
use forwarder_tests::lab::TunnelKind;

/// Measures the forwarder by the side of routing, nftables, nginx, HAProxy and others.
#[derive(Debug, Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench", max_term_width = 100)]
struct Arguments {
    /// A short run of about five minutes.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',', value_parser = known_workload)]
    only: Vec<&'static Workload>,
    /// Only these contenders; the control and routing always take part.
    #[arg(long, value_name = "CONTENDER", value_delimiter = ',', value_parser = known_contender)]
    contenders: Vec<&'static Contender>,
    /// Rounds; 5 unless told, 2 with --quick. Some workloads take part in three of them unless they are named with
    /// --only.
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Length of one measurement in seconds; 1 unless told, 0.5 with --quick.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Idle connections held at once; 100,000 unless told, 10,000 with --quick.
    #[arg(long, value_name = "COUNT")]
    flows: Option<usize>,
    /// Names in the largest table; 100,000 unless told, 10,000 with --quick.
    #[arg(long, value_name = "COUNT")]
    names: Option<usize>,
    /// Use WireGuard in user space as the tunnel: its cryptography then takes most of the time.
    #[arg(long)]
    wireguard: bool,
    /// The part of the machine that other programs may use, in per cent; more of it means another try.
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0)]
    noise: f64,
    /// Seconds that the whole run may wait for other programs to be quiet.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
    /// Write every figure to this file, as JSON. A whole run (no --quick, --only, --contenders) writes
    /// bench/results/DATE.json by itself, and docs/performance.md.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure nothing: show the figures of a former run, and write docs/performance.md anew from them.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// List workloads and contenders.
    #[arg(long)]
    list: bool,
}

fn known_workload(name: &str) -> Result<&'static Workload, String> {
    let names = || {
        workload::ALL
            .iter()
            .map(|it| it.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    workload::named(name).ok_or_else(|| format!("there are {}", names()))
}

fn known_contender(name: &str) -> Result<&'static Contender, String> {
    let names = || {
        contender::ALL
            .iter()
            .map(|it| it.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    Contender::named(name).ok_or_else(|| format!("there are {}", names()))
}

fn main() -> ExitCode {
    cleanup::on_signal_exit();
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    match work(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn list() {
    println!("workloads");
    for workload in workload::ALL {
        println!("  {:<20} {}", workload.name, workload.title);
    }
    println!("contenders");
    for contender in contender::ALL {
        println!("  {:<20} {}", contender.name, contender.title);
    }
}

fn work(arguments: &Arguments) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = workspace.join("docs/performance.md");
    if let Some(path) = &arguments.report {
        let run = Run::read(path)?;
        println!("{}", table::all(&run));
        return page::write(&run, &page, &name(path));
    }
    forwarder_tests::require_root()?;
    let run = plan::run(&plan(arguments))?;
    println!("{}", table::all(&run));
    if let Some(path) = &arguments.json {
        run.write(path)?;
    }
    let whole = arguments.only.is_empty() && arguments.contenders.is_empty();
    if whole && !arguments.quick && !arguments.wireguard {
        let file = format!("{}.json", page::date(run.began));
        run.write(&workspace.join("bench/results").join(&file))?;
        page::write(&run, &page, &file)?;
    }
    Ok(())
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn plan(arguments: &Arguments) -> Plan {
    let quick = |full, short| if arguments.quick { short } else { full };
    let chosen = |contender: &&Contender| {
        let always = [CONTROL, YARDSTICK].contains(&contender.name);
        let mut asked = arguments.contenders.iter().map(|it| it.name);
        always || arguments.contenders.is_empty() || asked.any(|name| name == contender.name)
    };
    let wanted = |workload: &&&'static Workload| {
        let mut asked = arguments.only.iter().map(|it| it.name);
        let named = asked.any(|name| name == workload.name);
        named || (arguments.only.is_empty() && (workload.quick || !arguments.quick))
    };
    Plan {
        contenders: contender::ALL.iter().filter(chosen).collect(),
        workloads: workload::ALL.iter().filter(wanted).copied().collect(),
        rounds: arguments.rounds.unwrap_or(quick(5, 2)),
        chosen: !arguments.only.is_empty(),
        scale: Scale {
            seconds: arguments
                .seconds
                .unwrap_or(if arguments.quick { 0.5 } else { 1.0 }),
            flows: arguments.flows.unwrap_or(quick(100_000, 10_000)),
            names: arguments.names.unwrap_or(quick(100_000, 10_000)),
        },
        tunnel: if arguments.wireguard {
            TunnelKind::WireGuard
        } else {
            TunnelKind::Ethernet
        },
        noise_limit: arguments.noise / 100.0,
        patience: Duration::from_secs(arguments.patience),
        tries: quick(3, 2),
    }
}
