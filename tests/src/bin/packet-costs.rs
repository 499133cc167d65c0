//! Prints what one packet costs in the kernel programs, on each way through them. Needs root.

use std::process::ExitCode;

use forwarder_tests::programs::path::costs;

fn main() -> ExitCode {
    match costs() {
        Ok(costs) => {
            print!("{costs}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("packet-costs: {error}");
            ExitCode::FAILURE
        }
    }
}
