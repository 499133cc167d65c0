//! The command line: raw arguments here, one file per subcommand beside.

mod check;
mod completions;
mod confirm;
mod doctor;
mod explain;
pub mod failure;
mod flow;
mod globals;
mod guard;
mod init;
mod listener;
mod man;
mod node;
mod output;
mod pool;
mod reload;
mod remote;
mod route;
mod run;
mod status;
mod top;
mod unload;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use self::globals::{Globals, STANDARD_INPUT};

/// What `forwarder --help` ends with.
const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  it did not work; the reason is on standard error
  2  the command line is wrong

Documentation: docs/config.md describes every key of the configuration file, docs/operate.md how to run
and change the forwarder, docs/control.md its control socket.";

/// Routes TLS connections to the nodes of a home cluster by server name, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "forwarder", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Run(run::Run),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Status(status::ShowStatus),
    Reload(reload::Reload),
    Route(route::Route),
    Node(node::Node),
    Pool(pool::Pool),
    Listener(listener::Listener),
    Flow(flow::Flow),
    Explain(explain::Explain),
    Watch(watch::Watch),
    Top(top::Top),
    Confirm(confirm::Confirm),
    Unload(unload::Unload),
    #[command(hide = true)]
    Guard(guard::Guard),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

impl Cli {
    /// Does what was asked for.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let reads = matches!(self.command, Command::Check(_));
        if self.globals.config() == Path::new(STANDARD_INPUT) && !reads {
            let why = "`--config -`: only `forwarder check` reads the configuration from standard input; name a file";
            Self::command()
                .error(ErrorKind::ValueValidation, why)
                .exit();
        }
        match self.command {
            Command::Init(init) => init.execute(&self.globals),
            Command::Run(run) => run.execute(&self.globals),
            Command::Check(check) => check.execute(&self.globals),
            Command::Doctor(doctor) => doctor.execute(&self.globals),
            Command::Status(status) => status.execute(&self.globals),
            Command::Reload(reload) => reload.execute(&self.globals),
            Command::Route(route) => route.execute(&self.globals),
            Command::Node(node) => node.execute(&self.globals),
            Command::Pool(pool) => pool.execute(&self.globals),
            Command::Listener(listener) => listener.execute(&self.globals),
            Command::Flow(flow) => flow.execute(&self.globals),
            Command::Explain(explain) => explain.execute(&self.globals),
            Command::Watch(watch) => watch.execute(&self.globals),
            Command::Top(top) => top.execute(&self.globals),
            Command::Confirm(confirm) => confirm.execute(&self.globals),
            Command::Unload(unload) => unload.execute(&self.globals),
            Command::Guard(guard) => guard.execute(&self.globals),
            Command::Completions(completions) => completions.execute(Self::command()),
            Command::Man(man) => man.execute(Self::command()),
        }
    }
}
