//! `forwarder man`: manual pages, for packages.
//!
//! Section 1 is made of the command line's own help, `forwarder.toml(5)` of `docs/config.md`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

const CONFIG: &str = include_str!("../../../docs/config.md");
const MANUAL: &str = "forwarder manual";
/// Builds are to be the same on every day; an argument without a character would be skipped.
const NO_DATE: &str = " ";

/// Write manual pages: forwarder.1, one for each verb, and forwarder.toml.5.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Where they go; made if it is not there.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Man {
    pub fn execute(self, command: clap::Command) -> anyhow::Result<ExitCode> {
        let folder = &self.output;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut command = command.disable_help_subcommand(true);
        command.build();
        write(&command, folder)?;
        let path = folder.join("forwarder.toml.5");
        fs::write(&path, configuration())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The page of a command and those of its visible subcommands.
fn write(command: &clap::Command, folder: &Path) -> anyhow::Result<()> {
    for below in command.get_subcommands().filter(|own| !own.is_hide_set()) {
        write(below, folder)?;
    }
    let page = clap_mangen::Man::new(command.clone())
        .manual(MANUAL)
        .date(NO_DATE);
    let path = folder.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text)?;
    let mut file =
        fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(&text)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// `docs/config.md` as a manual page.
fn configuration() -> String {
    let mut roff = Roff::new();
    let version = concat!("forwarder ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["forwarder.toml", "5", NO_DATE, version, MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("forwarder.toml - configuration of forwarder(1)")]);
    let mut lines = CONFIG.lines().peekable();
    let mut headed = false;
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            headed = true;
            roff.control("SH", [plain(title).as_str()]);
        } else if let Some(title) = line
            .strip_prefix("### ")
            .or_else(|| line.strip_prefix("#### "))
        {
            roff.control("SS", [plain(title).as_str()]);
        } else if line.starts_with("# ") || line.starts_with("|---") || line == "| | |" {
            if !headed {
                roff.control("SH", ["DESCRIPTION"]);
                headed = true;
            }
        } else if line.starts_with("```") {
            roff.control("PP", []);
            roff.control("nf", []);
            for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                roff.text([roman(line)]);
            }
            roff.control("fi", []);
        } else if let Some(row) = line.strip_prefix('|') {
            let cells: Vec<_> = row
                .trim_end_matches('|')
                .split('|')
                .map(str::trim)
                .collect();
            roff.control("br", []);
            roff.text(inlines(&cells.join(": ")));
        } else if let Some(item) = line.strip_prefix("- ") {
            roff.control("IP", ["\\(bu", "2"]);
            let mut item = item.to_owned();
            while let Some(more) = lines.next_if(|line| line.starts_with("  ")) {
                item.push(' ');
                item.push_str(more.trim_start());
            }
            roff.text(inlines(&item));
        } else if line.is_empty() {
            roff.control("PP", []);
        } else {
            // Lines of a paragraph are joined, so that a link may go over their end.
            let mut paragraph = line.to_owned();
            let goes_on = |line: &&str| {
                let begins = ["#", "|", "```", "- "];
                !line.is_empty() && !begins.iter().any(|begin| line.starts_with(begin))
            };
            while let Some(more) = lines.next_if(goes_on) {
                paragraph.push(' ');
                paragraph.push_str(more);
            }
            roff.text(inlines(&paragraph));
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("forwarder"),
        roman("(1), "),
        bold("forwarder-check"),
        roman("(1)"),
    ]);
    roff.render()
}

/// Without marks.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// Code is bold, emphasis italic; of a link its text is left.
fn inlines(text: &str) -> Vec<Inline> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '[', '*']) {
        let (before, from) = rest.split_at(at);
        let mark = &from[..1];
        let found = match mark {
            "[" => from[1..].split_once("](").and_then(|(shown, after)| {
                let (_, after) = after.split_once(')')?;
                Some((inlines(shown), after))
            }),
            _ => from[1..].split_once(mark).map(|(marked, after)| {
                let marked = if mark == "`" {
                    bold(marked)
                } else {
                    italic(marked)
                };
                (vec![marked], after)
            }),
        };
        all.push(roman(before));
        match found {
            Some((marked, after)) => {
                all.extend(marked);
                rest = after;
            }
            None => {
                all.push(roman(mark));
                rest = &from[1..];
            }
        }
    }
    all.push(roman(rest));
    all
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn every_verb_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("man");
        Man {
            output: output.clone(),
        }
        .execute(Cli::command())
        .unwrap();
        let read = |name: &str| {
            let path = output.join(name);
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let main = read("forwarder.1");
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            let page = format!("forwarder-{name}.1");
            if verb.is_hide_set() {
                assert!(!output.join(&page).exists(), "{name} is hidden");
                continue;
            }
            assert!(read(&page).starts_with(".ie"), "{page}");
            assert!(main.contains(&format!("forwarder\\-{name}(1)")), "{name}");
        }
        assert!(read("forwarder-node-drain.1").contains("No new flows"));
        let codes = read("forwarder-watch.1");
        assert!(
            codes.contains("the daemon ended"),
            "what stands below the help is there"
        );
    }

    #[test]
    fn the_manual_of_the_file_has_every_heading_and_no_marks() {
        let page = configuration();
        for line in CONFIG.lines() {
            let key = line
                .strip_prefix("### ")
                .or_else(|| line.strip_prefix("#### "));
            if let Some(key) = key {
                let heading = format!(".SS {}", plain(key));
                let quoted = format!(".SS \"{}\"", plain(key));
                assert!(page.contains(&heading) || page.contains(&quoted), "{key}");
            }
        }
        let mut code = false;
        for line in page.lines() {
            code = (code || line == ".nf") && line != ".fi";
            let marked = !code && (line.contains('`') || line.contains("]("));
            assert!(!marked, "a mark is left: {line}");
        }
    }

    #[test]
    fn marks_become_fonts() {
        let line = inlines("a `b` [c `d`](e.md#f) *g* [h");
        let text = Roff::new().text(line).render();
        assert!(
            text.contains("a \\fBb\\fR c \\fBd\\fR \\fIg\\fR [h"),
            "{text}"
        );
    }
}
