//! `make demo`: the entrance at work, with programs that nobody here wrote on both sides and a real
//! WireGuard tunnel between, all inside network namespaces of its own.
//!
//! Leaves with status 1 when a check fails. `--json` tells the same as data; `--keep` leaves the lab
//! up for a look around.

mod report;
mod scene;
mod steps;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use forwarder_tests::{Result, cleanup, netns, process};
use serde_json::json;

use report::Report;
use scene::Scene;

/// Shows the forwarder with real clients, servers and a WireGuard tunnel.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Print the results as one JSON object.
    #[arg(long)]
    json: bool,
    /// Leave the lab up afterwards.
    #[arg(long)]
    keep: bool,
    /// Remove a lab that was left up.
    #[arg(long, value_name = "LAB", conflicts_with_all = ["json", "keep"])]
    remove: Option<String>,
}

fn main() -> ExitCode {
    cleanup::on_signal_exit();
    let arguments = Arguments::parse();
    match work(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; says whether every check held.
fn work(arguments: &Arguments) -> Result<bool> {
    forwarder_tests::require_root()?;
    if let Some(lab) = &arguments.remove {
        netns::remove_lab(lab);
        println!("removed {lab}");
        return Ok(true);
    }
    if arguments.keep {
        process::let_children_outlive();
    }
    let begin = Instant::now();
    let mut report = Report::new(arguments.json);
    let scene = Scene::set(&mut report, arguments.keep)?;
    steps::all(&scene, &mut report)?;
    let status = scene.forwarder.status()?;
    report.counters(&scene.forwarder.status_text()?);
    report.farewell(&scene, begin.elapsed(), arguments.keep);
    let all_good = report.all_good();
    if arguments.json {
        let lab = arguments.keep.then(|| scene.lab.name());
        let seconds = begin.elapsed().as_secs_f64();
        let steps = report.into_json();
        println!(
            "{:#}",
            json!({ "ok": all_good, "seconds": seconds, "steps": steps, "status": status, "lab": lab })
        );
    }
    if arguments.keep {
        cleanup::keep_all();
        std::mem::forget(scene);
    }
    Ok(all_good)
}
