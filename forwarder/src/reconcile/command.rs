//! What may be asked of the daemon's loop, and what it answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::refused::Refused;
use crate::config::Config;
use crate::config::difference::{Difference, Fixed};
use crate::config::edit::Edit;
use crate::config::lasting::Lasts;
use crate::dataplane::registry::Registry;
use crate::instance::paths::Paths;
use crate::link::Network;

/// Where the answer to a command goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// A command.
#[derive(Debug)]
pub enum Command {
    /// Show what you know.
    Show(Reply<Snapshot>),
    /// Read the configuration files again.
    Reload {
        /// End flows whose route is gone.
        reset: bool,
        /// Go back to the former one after this time, unless somebody confirms before.
        confirm: Option<Duration>,
        /// The answer.
        reply: Reply<Reloaded>,
    },
    /// Change the configuration in use.
    Edit {
        /// How.
        edit: Edit,
        /// Also in the file.
        persist: bool,
        /// End flows that this leaves without a route or, for a node's state, on that node.
        reset: bool,
        /// The answer.
        reply: Reply<Edited>,
    },
    /// Stay attached, and with this configuration: the operator still reaches this machine.
    Confirm(Reply<Confirmed>),
}

/// What the daemon knows.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The configuration in use, edits included.
    pub config: Arc<Config>,
    /// What numbers stand for.
    pub registry: Registry,
    /// The network.
    pub network: Network,
    /// Where the instance keeps its files.
    pub paths: Paths,
    /// Edits at run time that the files do not hold.
    pub edits: Vec<Edit>,
}

/// What `forwarder reload` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is different now.
    pub difference: Difference,
    /// Settings that need a restart and are ignored until then.
    pub fixed: Vec<Fixed>,
    /// What the maps have little room left for.
    #[serde(default)]
    pub tight: Vec<String>,
    /// Edits that ended.
    pub edits: Vec<Edit>,
    /// Edits of nodes that go on.
    #[serde(default)]
    pub kept: Vec<Edit>,
    /// Warnings about the files, as `forwarder check --json` writes them.
    pub report: Value,
    /// Flows that were ended because their route is gone.
    pub reset: usize,
}

/// What came of an edit.
#[derive(Clone, Debug, Serialize)]
pub struct Edited {
    /// What is different now.
    pub difference: Difference,
    /// Whether the files say it, too.
    pub persisted: bool,
    /// How long it lasts.
    pub until: Lasts,
    /// The files that were written.
    pub files: Vec<PathBuf>,
    /// Flows that were ended.
    pub reset: usize,
}

/// What came of a confirmation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Confirmed {
    /// Whether it was waited for.
    pub waited: bool,
}

/// Sends commands.
#[derive(Clone, Debug)]
pub struct Commands(mpsc::Sender<Command>);

/// Commands that wait while the daemon is busy.
const WAITING: usize = 32;

/// Both ends.
pub fn channel() -> (Commands, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Commands(sender), receiver)
}

impl Commands {
    /// Asks what the daemon knows.
    pub async fn show(&self) -> Result<Snapshot, Refused> {
        self.give(Command::Show).await
    }

    /// Gives a command and waits for its answer.
    pub async fn give<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send(command(reply)).await;
        sent.map_err(|_| Refused::Stopping)?;
        answer.await.map_err(|_| Refused::Stopping)?
    }
}
