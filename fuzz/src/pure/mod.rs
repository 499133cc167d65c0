//! Targets of the pure crate; `forwarder-common/tests/replay.rs` takes them in as well.

mod flow;
mod hello;
mod name;
mod options;
mod proxy;
mod talk;

pub use flow::flow;
pub use hello::hello;
pub use name::name;
pub use options::options;
pub use proxy::proxy;
pub use talk::talk;
