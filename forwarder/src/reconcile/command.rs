//! What the server asks of the daemon's loop.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::config::edit::Edit;
use crate::control::problem::Problem;
use crate::dataplane::registry::Registry;
use crate::instance::paths::Place;
use crate::link::Network;

/// Where an order's answer goes.
pub type Reply = oneshot::Sender<Result<Value, Problem>>;

/// An order.
#[derive(Debug)]
pub enum Order {
    /// Show what you know.
    Look(oneshot::Sender<Look>),
    /// Read the configuration file again.
    Reload {
        /// End flows whose route is gone.
        reset: bool,
        /// Go back to the former one after this time, unless somebody confirms before.
        confirm: Option<Duration>,
        /// The answer.
        reply: Reply,
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
        reply: Reply,
    },
    /// Stay attached, and with this configuration: the operator still reaches this machine.
    Confirm(Reply),
}

/// What the daemon knows.
#[derive(Clone, Debug)]
pub struct Look {
    /// The configuration in use, edits included.
    pub config: Arc<Config>,
    /// What numbers stand for.
    pub registry: Registry,
    /// The network.
    pub network: Network,
    /// Where its things are.
    pub place: Place,
    /// Edits at run time that the files do not hold.
    pub edits: Vec<Edit>,
}

/// Sends orders.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

/// Room for orders that wait while the daemon is busy.
const WAITING: usize = 32;

/// Both ends.
pub fn channel() -> (Orders, mpsc::Receiver<Order>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Orders(sender), receiver)
}

impl Orders {
    /// Asks what the daemon knows.
    pub async fn look(&self) -> Result<Look, Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Look(reply)).await?;
        answer.await.map_err(|_| Problem::stopping())
    }

    /// Gives an order and waits for its answer.
    pub async fn give(&self, order: impl FnOnce(Reply) -> Order) -> Result<Value, Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(order(reply)).await?;
        answer.await.map_err(|_| Problem::stopping())?
    }

    async fn send(&self, order: Order) -> Result<(), Problem> {
        self.0.send(order).await.map_err(|_| Problem::stopping())
    }
}
