//! The test programs of the lab, several at a time.
//!
//! Most of them wait for timers most of the time, and each has namespaces, a BPF file system and a run folder of its own.
//! Those that measure time, or flood, come last and alone. Cargo only builds: it would run one after the other. Nor is it
//! nextest, which starts a process, and so a lab, for each test.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::privilege;
use crate::process;
use crate::workspace::Workspace;

/// Tables of packets: they load programs once a thread, and keep every processor busy.
const TABLES: &str = "programs";
/// Those of them that have two processors meet, and so need both.
const RACES: &str = "races::";

/// Programs that flood or measure.
const ALONE: &[&str] = &[
    "armour",
    "bench",
    "hostile",
    "loss",
    "starvation",
    "survival",
];

/// Those that take longest begin first, lest one of them be left at the end.
const LONG: &[&str] = &[
    "operate",
    "splice",
    "nodes",
    "links",
    "lifecycle",
    "confirm",
    "health",
    "outage",
    "claims",
    "names",
    "doctor",
    "configuration",
];

/// A test program that takes longer hangs, and is ended.
const LIMIT: &str = "1800s";

/// How many lines of a failed program are shown once more at the end.
const LINES_SHOWN: usize = 150;

/// A built test program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
}

/// A test program to be run.
#[derive(Clone, Debug)]
struct Job {
    /// What it is called; the name of its log.
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

/// How a job ended.
#[derive(Debug)]
struct Done {
    name: String,
    took: Duration,
    log: PathBuf,
    passed: bool,
}

/// Has Cargo build what its arguments name, and tells the test programs among it.
pub fn build(cargo: &mut Command) -> Result<Vec<Program>> {
    cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", process::shown(cargo)))?;
    if !output.status.success() {
        bail!("{} ended with {}", process::shown(cargo), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<_> = messages.lines().filter_map(program).collect();
    if programs.is_empty() {
        bail!("{} built no test program", process::shown(cargo));
    }
    Ok(programs)
}

/// A message of Cargo's about a test program.
fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    Some(Program {
        name: message["target"]["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
    })
}

/// Runs them all as root, `lanes` at a time, in the folder of their crate. Every program is run, whichever tests fail.
pub fn run(
    workspace: &Workspace,
    folder: &Path,
    programs: Vec<Program>,
    lanes: usize,
) -> Result<()> {
    let logs = workspace.target().join("lab");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let stages = stages(programs, processors());
    let mut done = Vec::new();
    for (jobs, lanes) in [
        (stages.first, 1),
        (stages.together, lanes),
        (stages.alone, 1),
    ] {
        done.extend(work(jobs, lanes, |job| carry_out(job, folder, &logs))?);
    }
    summary(&done)
}

/// What runs when.
struct Stages {
    first: VecDeque<Job>,
    together: VecDeque<Job>,
    alone: VecDeque<Job>,
}

fn stages(mut programs: Vec<Program>, processors: usize) -> Stages {
    let rank = |name: &str| {
        LONG.iter()
            .position(|own| *own == name)
            .unwrap_or(LONG.len())
    };
    programs.sort_by_key(|program| (rank(&program.name), program.name.clone()));
    let mut stages = Stages {
        first: VecDeque::new(),
        together: VecDeque::new(),
        alone: VecDeque::new(),
    };
    let job = |name: &str, program: &Program, arguments: &[&str]| Job {
        name: name.to_owned(),
        program: program.path.clone(),
        arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
    };
    let threads = processors.to_string();
    for program in &programs {
        let name = program.name.as_str();
        if name == TABLES {
            let all_but_races = ["--test-threads", &threads, "--skip", RACES];
            stages.first.push_back(job(name, program, &all_but_races));
            let races = [RACES, "--test-threads", "1"];
            stages
                .first
                .push_back(job("programs-races", program, &races));
            continue;
        }
        let job = job(name, program, &["--test-threads", "1"]);
        if ALONE.contains(&name) {
            stages.alone.push_back(job);
        } else {
            stages.together.push_back(job);
        }
    }
    stages
}

/// Carries out jobs in their order, as many at a time as there are lanes.
fn work<T: Send>(
    jobs: VecDeque<Job>,
    lanes: usize,
    carry_out: impl Fn(&Job) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let jobs = Mutex::new(jobs);
    let next = || {
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.pop_front()
    };
    let lane = || -> Result<Vec<T>> {
        let mut done = Vec::new();
        while let Some(job) = next() {
            done.push(carry_out(&job)?);
        }
        Ok(done)
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes.max(1)).map(|_| scope.spawn(lane)).collect();
        let mut all = Vec::new();
        for lane in lanes {
            match lane.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// Runs a program to its end and shows at once all that it said.
fn carry_out(job: &Job, folder: &Path, logs: &Path) -> Result<Done> {
    let path = logs.join(format!("{}.log", job.name));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    println!("--- begins {}", job.name);
    let started = Instant::now();
    // As root, which this process may not be. In the foreground, so that an interrupt reaches the program, too.
    let status = privilege::as_root(Path::new("timeout"))
        .args(["--foreground", "--kill-after=30s", LIMIT])
        .arg(&job.program)
        .args(&job.arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .with_context(|| format!("cannot run {}", job.program.display()))?;
    let done = Done {
        name: job.name.clone(),
        took: started.elapsed(),
        passed: status.success() && has_run(&text(&path)),
        log: path,
    };
    let hung = if matches!(status.code(), Some(124 | 137)) {
        format!(" (ended after {LIMIT})")
    } else {
        String::new()
    };
    // One write, so that lanes do not mix.
    println!(
        "--- {}: {status}{hung}\n{}",
        done.line(),
        text(&done.log).trim_end()
    );
    Ok(done)
}

/// Whether a test program came to its end and ran anything: a test may end the process, and a filter may match nothing.
fn has_run(said: &str) -> bool {
    said.lines().any(|line| {
        line.strip_prefix("test result: ok. ")
            .and_then(|rest| rest.split(' ').next())
            .and_then(|count| count.parse::<u32>().ok())
            .is_some_and(|passed| passed > 0)
    })
}

impl Done {
    fn line(&self) -> String {
        let word = if self.passed { "passed" } else { "FAILED" };
        format!("{word}  {:>6.1} s  {}", self.took.as_secs_f32(), self.name)
    }
}

fn text(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}

/// Times of all programs, the longest first; then once more what failed ones said, so that it stands at the end of a long
/// log.
fn summary(done: &[Done]) -> Result<()> {
    let mut by_time: Vec<_> = done.iter().collect();
    by_time.sort_by_key(|done| std::cmp::Reverse(done.took));
    println!("--- test programs");
    for done in by_time {
        println!("  {}", done.line());
    }
    let failed: Vec<_> = done.iter().filter(|done| !done.passed).collect();
    for done in &failed {
        println!(
            "--- {} failed:\n{}",
            done.name,
            of_failures(&text(&done.log))
        );
    }
    if !failed.is_empty() {
        let names: Vec<_> = failed.iter().map(|done| done.name.as_str()).collect();
        bail!(
            "{} of {} test programs failed: {}",
            failed.len(),
            done.len(),
            names.join(", ")
        );
    }
    Ok(())
}

/// What a test program says of its failures, or the end of all that it said.
fn of_failures(text: &str) -> String {
    let text = text
        .find("\nfailures:\n")
        .map_or(text, |at| &text[at + 1..]);
    let lines: Vec<_> = text.trim_end().lines().collect();
    if lines.len() <= 2 * LINES_SHOWN {
        return lines.join("\n");
    }
    let (first, last) = (&lines[..LINES_SHOWN], &lines[lines.len() - LINES_SHOWN..]);
    format!("{}\n...\n{}", first.join("\n"), last.join("\n"))
}

/// How many lanes there are unless told: two, where there are two processors.
pub fn usual_lanes() -> usize {
    processors().clamp(1, 2)
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(jobs: &VecDeque<Job>) -> Vec<&str> {
        jobs.iter().map(|job| job.name.as_str()).collect()
    }

    #[test]
    fn what_measures_comes_last_and_tables_first() {
        let programs = ["names", "starvation", "programs", "hello", "bench"].map(|name| Program {
            name: name.to_owned(),
            path: format!("/{name}").into(),
        });
        let stages = stages(programs.to_vec(), 4);
        assert_eq!(names(&stages.first), ["programs", "programs-races"]);
        // The longer one first.
        assert_eq!(names(&stages.together), ["names", "hello"]);
        assert_eq!(names(&stages.alone), ["bench", "starvation"]);
        assert_eq!(
            stages.first[0].arguments,
            ["--test-threads", "4", "--skip", "races::"]
        );
    }

    #[test]
    fn what_ran_nothing_has_not_passed_and_a_failure_is_an_error() {
        let result = "test result: ok. 1 passed; 0 failed; 0 ignored";
        assert!(has_run(&format!("running 1 test\n\n{result}\n")));
        assert!(!has_run(&result.replace("1 passed", "0 passed")));
        assert!(!has_run("running 2 tests\ntest a ... ok\n"));
        let done = |passed| Done {
            name: "x".to_owned(),
            took: Duration::ZERO,
            log: PathBuf::new(),
            passed,
        };
        assert!(summary(&[done(true)]).is_ok());
        let failed = summary(&[done(true), done(false)]).unwrap_err();
        assert!(failed.to_string().contains("1 of 2"), "{failed}");
    }

    #[test]
    fn every_program_that_is_named_exists() {
        let tests = Workspace::locate().unwrap().root().join("tests/tests");
        for name in ALONE.iter().chain(LONG).chain([&TABLES]) {
            let file = tests.join(format!("{name}.rs"));
            let folder = tests.join(name).join("main.rs");
            assert!(file.is_file() || folder.is_file(), "{name}");
        }
        assert!(tests.join(TABLES).join("races.rs").is_file());
    }

    #[test]
    fn lanes_share_the_jobs() {
        let job = |number: usize| Job {
            name: number.to_string(),
            program: PathBuf::new(),
            arguments: Vec::new(),
        };
        let both = std::sync::Barrier::new(2);
        let jobs = (0..8).map(job).collect();
        let done = work(jobs, 2, |job| {
            // Ends only if two are at work.
            both.wait();
            Ok(job.name.clone())
        });
        let mut done = done.unwrap();
        done.sort();
        assert_eq!(done, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn programs_are_among_what_cargo_tells() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"hello"},"profile":{"test":true},"executable":"/x/hello-1"}"#;
        assert_eq!(program(message).unwrap().path, Path::new("/x/hello-1"));
        assert!(program(&message.replace("true", "false")).is_none());
        assert!(program("Compiling").is_none());
    }

    #[test]
    fn the_end_tells_of_failures() {
        let text = "running 2 tests\ntest a ... ok\n\nfailures:\n\n---- b stdout ----\nwhy\n";
        assert_eq!(of_failures(text), "failures:\n\n---- b stdout ----\nwhy");
        assert_eq!(of_failures("killed\n"), "killed");
        let long = (0..1_000)
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        assert_eq!(of_failures(&long).lines().count(), 2 * LINES_SHOWN + 1);
    }
}
