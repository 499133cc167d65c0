//! Runs other programs: quietly with a spinner, or with their output shown; never through a shell.
//!
//! What xtask itself says goes to stderr, so that `cargo xtask demo --json` prints only JSON.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::workspace::Workspace;

/// How often a running step is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How much of a running step's last line is shown, in characters.
const SHOWN_WIDTH: usize = 48;

/// How many lines of a failed step's log are shown.
const LOG_LINES_SHOWN: usize = 30;

/// Runs `command` with its output in `<cache>/log/<name>.log`; shows `what`, a spinner and the
/// time. On failure the end of the log is part of the error.
pub fn step(workspace: &Workspace, name: &str, what: &str, command: &mut Command) -> Result<()> {
    let folder = workspace.cache().join("log");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{name}.log"));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);

    let started = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    let spinner = spinner(what);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        spinner.set_message(match last_line(&path) {
            Some(line) => format!("{what}: {line}"),
            None => what.to_owned(),
        });
        thread::sleep(POLL);
    };
    spinner.finish_and_clear();
    if !status.success() {
        bail!(
            "{what}: {} ended with {status}\n{}\n(all of it: {})",
            shown(command),
            tail(&path),
            path.display()
        );
    }
    eprintln!("  {what}: done in {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// Runs `command` with its output shown as it comes; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs `command` and returns what it printed; anything but success is an error with its stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} ended with {}\n{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{}: not UTF-8", shown(command)))
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// An error and its causes, one a line: a failed step needs no backtrace of xtask.
pub fn causes(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n  ")
}

fn spinner(what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("  {what} ...");
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// What the step said last; only the end of the log is read.
fn last_line(path: &Path) -> Option<String> {
    let mut log = File::open(path).ok()?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(512))).ok()?;
    let mut end = Vec::new();
    log.read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    let line = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())?;
    Some(line.chars().take(SHOWN_WIDTH).collect())
}

fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
