//! `forwarder completions`: the script that completes the command line in a shell.

use std::process::ExitCode;

use clap_complete::Shell;

use super::output::show;

const AFTER_HELP: &str = "\
Examples:
  forwarder completions bash > /usr/share/bash-completion/completions/forwarder
  forwarder completions zsh  > /usr/share/zsh/site-functions/_forwarder
  forwarder completions fish > ~/.config/fish/completions/forwarder.fish";

/// Write a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub fn execute(self, mut command: clap::Command) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "forwarder", &mut script);
        show(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
