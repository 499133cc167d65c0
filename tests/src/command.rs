//! Finding and running programs, with errors that tell what was run and what it said.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::{Context, Error, Result};

/// How much of a failed program's output an error repeats.
const QUOTED: usize = 4_000;

/// The folder into which the set-up unpacks servers and tools that are not installed.
///
/// `FORWARDER_LAB_BIN` names another one.
#[must_use]
pub fn cache() -> PathBuf {
    std::env::var_os("FORWARDER_LAB_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
            workspace.unwrap_or(Path::new(".")).join(".cache/bin")
        },
        PathBuf::from,
    )
}

/// Finds a program: the cache folder first, then `PATH`, then the folders of system programs, which
/// a user's `PATH` often lacks.
pub fn find(program: &str) -> Result<PathBuf> {
    let cache = cache();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(cache.clone())
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Error::ProgramMissing {
            program: program.to_owned(),
            cache,
        })
}

/// Finds one of this crate's own programs, which Cargo puts beside the tests and the demo.
pub fn find_own(program: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context(|| "finding this program's own file".to_owned())?;
    here.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Error::ProgramMissing {
            program: program.to_owned(),
            cache: here.parent().map(Path::to_path_buf).unwrap_or_default(),
        })
}

/// A command for a program that [`find`] finds.
pub fn command(program: &str) -> Result<Command> {
    Ok(Command::new(find(program)?))
}

/// Runs a command to its end and returns what it wrote on standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stdout));
    Err(Error::Command {
        command: describe(command),
        status: output.status.to_string(),
        output: tail(text.trim(), QUOTED).to_owned(),
    })
}

/// Runs a command to its end, whatever its exit status is.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .context(|| format!("running `{}`", describe(command)))
}

/// Runs a command to its end with a text on its standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    use std::io::Write;
    let what = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| format!("running `{what}`"))?;
    let mut stdin = child.stdin.take().ok_or_else(|| Error::Unintelligible {
        what: format!("standard input of `{what}`"),
        text: String::new(),
    })?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child
        .wait_with_output()
        .context(|| format!("waiting for `{what}`"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let output = format!("{}\nwith the input:\n{input}", tail(text.trim(), QUOTED));
        return Err(Error::Command {
            command: what,
            status: "an error".to_owned(),
            output,
        });
    }
    written.context(|| format!("writing to `{what}`"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command line as a person would type it.
#[must_use]
pub fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.is_empty() || word.contains(char::is_whitespace) {
                format!("'{word}'")
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last `limit` bytes of a text, cut at a character.
pub(crate) fn tail(text: &str, limit: usize) -> &str {
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Error, find, run};

    #[test]
    fn a_failure_tells_the_command_and_its_words() {
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c 'echo why"), "{text}");
        assert!(text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_missing_program_names_the_way_out() {
        let error = find("no-such-program-anywhere").unwrap_err();
        assert!(matches!(error, Error::ProgramMissing { .. }));
        assert!(error.to_string().contains("cargo xtask setup"));
    }
}
