//! The benchmark: what an entrance costs, by the side of everything that could stand in its place.
//!
//! ```text
//!  client ──────────────── entrance ──────────────── node
//!    │      eth0      (one contender at a time)  lan0  │
//!    └──────────────────── direct link ────────────────┘
//! ```
//!
//! All of a run happens on one machine: rounds in which the [`contender`]s take turns, each through every
//! [`workload`]. What counts is the CPU time of the whole machine for a unit of work, less what the same
//! work costs over the direct link in the same round: what it costs to have something in between.
//!
//! - [`scene`] is the network; [`load`] the client and the server, which cost little; [`bpf`] the few
//!   hand-made kernel programs that the bench itself needs;
//! - [`measure`] reads the machine's clocks and tells how much of it others have used;
//! - [`plan`] decides who runs when, waits for silence, repeats noisy rounds and outlives failures;
//! - [`record`] is what a run leaves; [`report`] turns it into tables, pages and charts.

pub mod bpf;
pub mod contender;
pub mod contenders;
pub mod load;
pub mod measure;
pub mod plan;
pub mod record;
pub mod report;
pub mod scene;
pub mod workload;
pub mod workloads;
