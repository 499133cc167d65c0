//! Prints what the verifier made of each kernel program; fails above the limit. Needs root.

use std::process::ExitCode;

use forwarder_tests::programs::budget::{Costs, LIMIT};
use forwarder_tests::programs::kernel::Kernel;

fn main() -> ExitCode {
    let costs = match Kernel::load(&[]).and_then(|kernel| Costs::of(&kernel)) {
        Ok(costs) => costs,
        Err(error) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                eprintln!("{error}");
                cause = error.source();
            }
            return ExitCode::FAILURE;
        }
    };
    print!("{costs}");
    for cost in costs.excessive() {
        eprintln!("{} is above {LIMIT} instructions", cost.program);
    }
    if costs.excessive().next().is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
