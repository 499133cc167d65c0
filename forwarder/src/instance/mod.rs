//! The ground floor: what one instance is, and what every other module may know of it.
//!
//! - [`paths`]: where it keeps its files, pins and socket.
//! - [`lock`]: held for as long as its daemon runs.
//! - [`files`]: how files of the run directory are replaced.
//! - [`error`]: an error with its causes, in one line.
//! - [`fatal`]: a panic anywhere ends the process.

pub mod error;
pub mod fatal;
pub mod files;
pub mod lock;
pub mod paths;
