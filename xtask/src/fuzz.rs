//! `cargo xtask fuzz`: searches with libFuzzer, one target after the other.
//!
//! cargo-fuzz is not needed: the passes that count coverage are flags of the pinned compiler, and the crate
//! `libfuzzer-sys` brings the rest. No sanitizer: the pure crate has no `unsafe` for one to watch.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, debian, process};

/// Every target, and where inputs for it lie beside its seeds.
const TARGETS: &[(&str, &[&str])] = &[
    ("hello", &["forwarder-common/tests/hello/captured"]),
    ("name", &[]),
    ("options", &[]),
    ("flow", &[]),
    ("talk", &[]),
    ("proxy", &[]),
    ("config", &["forwarder/tests/check"]),
    ("control", &[]),
];

/// Those that take the daemon, and minutes to build.
const OF_THE_DAEMON: &[&str] = &["config", "control"];

/// What makes the compiler count coverage as libFuzzer reads it.
const FLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";

/// Arguments of `fuzz`.
#[derive(Args)]
pub struct Arguments {
    /// Only these targets.
    #[arg(long = "target", value_delimiter = ',')]
    targets: Vec<String>,
    /// How long each is searched: `90s`, `10m`, `1h`.
    #[arg(long = "for", default_value = "1h", value_parser = duration)]
    time: Duration,
    /// Afterwards keep, as seeds, the smallest inputs that together reach what was found.
    #[arg(long)]
    keep: bool,
}

/// `90s`, `10m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("`{text}` is not a time such as 90s, 10m or 1h");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(malformed)?;
    let number: u64 = number.parse().map_err(|_| malformed())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(malformed()),
    };
    Ok(Duration::from_secs(number * seconds))
}

/// What a search came to.
struct Outcome {
    name: &'static str,
    took: Duration,
    /// libFuzzer's last line about progress.
    last: String,
    executed: String,
    sound: bool,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    if let Some(other) = arguments
        .targets
        .iter()
        .find(|own| !known.contains(&own.as_str()))
    {
        bail!("no target {other}: there are {}", known.join(", "));
    }
    if debian::machine_program("c++", Path::new("")).is_none() {
        bail!("libFuzzer is built with a C++ compiler, and there is none: apt install g++");
    }
    let wanted: Vec<_> = TARGETS
        .iter()
        .filter(|(name, _)| {
            arguments.targets.is_empty() || arguments.targets.iter().any(|own| own == name)
        })
        .collect();
    let mut outcomes = Vec::new();
    let folder = build(workspace, &wanted)?;
    for (name, beside) in wanted {
        let outcome = search(workspace, &folder, name, beside, arguments.time)?;
        println!("{}", outcome.line());
        if outcome.sound && arguments.keep {
            keep(workspace, &folder, name)?;
        }
        outcomes.push(outcome);
    }
    println!("\n| target | seconds | inputs tried | reached at the end |\n|---|---|---|---|");
    for outcome in &outcomes {
        println!("{}", outcome.line());
    }
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|own| !own.sound)
        .map(|own| own.name)
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} failed: the input is in fuzz/artifacts/; copy it to fuzz/crashes/<target>/, where `cargo test` replays it",
            failed.join(", ")
        );
    }
    Ok(())
}

impl Outcome {
    fn line(&self) -> String {
        let word = if self.sound { "" } else { ", FAILED" };
        format!(
            "| {} | {} | {} | {}{word} |",
            self.name,
            self.took.as_secs(),
            self.executed,
            self.last
        )
    }
}

/// Builds these targets; returns where they are.
fn build(workspace: &Workspace, wanted: &[&(&str, &[&str])]) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target = workspace.target().join("fuzz");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--target", &triple, "--manifest-path"])
        .arg(workspace.root().join("fuzz/Cargo.toml"))
        .current_dir(workspace.root())
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &target)
        .env(
            "FORWARDER_BPF_OBJECT",
            workspace.target().join("bpf/forwarder.o"),
        );
    for (name, _) in wanted {
        cargo.args(["--bin", name]);
    }
    if wanted.iter().any(|(name, _)| OF_THE_DAEMON.contains(name)) {
        // The daemon's crate holds the programs' object.
        setup::prepare(workspace, Purpose::Build)?;
        build::kernel_programs(workspace)?;
    } else {
        cargo.arg("--no-default-features");
    }
    process::run(&mut cargo)?;
    Ok(target.join(triple).join("release"))
}

fn search(
    workspace: &Workspace,
    programs: &Path,
    name: &'static str,
    beside: &[&str],
    time: Duration,
) -> Result<Outcome> {
    let fuzz = workspace.root().join("fuzz");
    let corpus = fuzz.join("corpus").join(name);
    let artifacts = fuzz.join("artifacts").join(name);
    let logs = workspace.target().join("fuzz/log");
    for folder in [&corpus, &artifacts, &logs] {
        fs::create_dir_all(folder)?;
    }
    let log = logs.join(name);
    println!(
        "searching {name} for {} s; log: {}",
        time.as_secs(),
        workspace.shown(&log)
    );
    let mut command = Command::new(programs.join(name));
    command
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args([
            "-max_len=20000",
            "-timeout=60",
            "-rss_limit_mb=3000",
            "-print_final_stats=1",
        ]);
    let dictionary = fuzz.join("dictionaries").join(name);
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.arg(&corpus);
    let kept = [
        fuzz.join("seeds").join(name),
        fuzz.join("crashes").join(name),
    ];
    let beside = beside.iter().map(|folder| workspace.root().join(folder));
    command.args(
        kept.into_iter()
            .chain(beside)
            .filter(|folder| folder.is_dir()),
    );
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let started = Instant::now();
    let status = command
        .current_dir(workspace.root())
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot run the target {name}"))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    Ok(Outcome {
        name,
        took: started.elapsed(),
        last: last_progress(&text),
        executed: executed(&text),
        sound: status.success(),
    })
}

/// `cov: … ft: … corp: …` of the last line that has it.
fn last_progress(log: &str) -> String {
    let of = |line: &str| {
        let from = line.find("cov: ")?;
        let to = line
            .find(" exec/s")
            .or_else(|| line.find(" lim:"))
            .unwrap_or(line.len());
        line.get(from..to).map(str::to_owned)
    };
    log.lines().rev().find_map(of).unwrap_or_default()
}

fn executed(log: &str) -> String {
    log.lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .map_or_else(|| String::from("?"), |number| number.trim().to_owned())
}

/// Replaces the seeds by the smallest inputs that reach as much as they and the corpus do.
fn keep(workspace: &Workspace, programs: &Path, name: &str) -> Result<()> {
    let fuzz = workspace.root().join("fuzz");
    let (seeds, corpus) = (
        fuzz.join("seeds").join(name),
        fuzz.join("corpus").join(name),
    );
    let merged = workspace.target().join("fuzz/merged").join(name);
    if merged.exists() {
        fs::remove_dir_all(&merged)?;
    }
    fs::create_dir_all(&merged)?;
    fs::create_dir_all(&seeds)?;
    let log = File::create(
        workspace
            .target()
            .join("fuzz/log")
            .join(format!("{name}-merge")),
    )?;
    let status = Command::new(programs.join(name))
        .args(["-set_cover_merge=1", "-max_len=20000"])
        .args([&merged, &seeds, &corpus])
        .current_dir(workspace.root())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    if !status.success() {
        bail!("the inputs of {name} cannot be merged");
    }
    let mut kept = Vec::new();
    for entry in fs::read_dir(&merged)? {
        kept.push(fs::read(entry?.path())?);
    }
    kept.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    fs::remove_dir_all(&seeds)?;
    fs::create_dir_all(&seeds)?;
    for (number, input) in kept.iter().enumerate() {
        fs::write(seeds.join(format!("{number:03}")), input)?;
    }
    println!("{name}: {} seeds kept", kept.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        for wrong in ["", "h", "10", "1d", "ä"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_reached_is_read_from_the_log() {
        let log = "#10\tNEW    cov: 7 ft: 9 corp: 2/3b lim: 4 exec/s: 5 rss: 6Mb\n#12\tDONE   cov: 8 ft: 10 corp: 3/4b lim: 4 exec/s: 6 rss: 6Mb\nDone 12 runs in 2 second(s)\nstat::number_of_executed_units: 12\n";
        assert_eq!(last_progress(log), "cov: 8 ft: 10 corp: 3/4b lim: 4");
        assert_eq!(executed(log), "12");
    }

    #[test]
    fn every_target_is_a_program() {
        let workspace = Workspace::locate().unwrap();
        let fuzz = workspace.root().join("fuzz/fuzz_targets");
        let mut files: Vec<_> = fs::read_dir(fuzz)
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        let mut known: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        files.sort();
        known.sort();
        assert_eq!(files, known);
    }
}
