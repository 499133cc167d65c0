//! The lab's web server as a program of its own, for measurements and for labs that outlive the
//! program that built them. See `forwarder_tests::server::web` for what it answers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use forwarder_tests::pki::Pki;
use forwarder_tests::server::web::{WebOptions, serve};
use forwarder_tests::talk;

/// An HTTPS server that reports what it saw as JSON.
#[derive(Debug, Parser)]
struct Arguments {
    /// What it calls itself in its reports.
    #[arg(long, default_value = "node")]
    name: String,
    /// The port, on all addresses.
    #[arg(long, default_value_t = 443)]
    port: u16,
    /// Expect a PROXY v2 header at the beginning of every connection.
    #[arg(long)]
    proxy: bool,
    /// Send TCP keep-alive probes after this many seconds.
    #[arg(long)]
    keep_alive: Option<u64>,
    /// Answer conversations (`forwarder_tests::talk`) instead of HTTPS.
    #[arg(long)]
    talk: bool,
    /// The folder with the lab's `certificate.pem` and `key.pem`.
    #[arg(long, required_unless_present = "talk")]
    certificates: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (port, proxy) = (arguments.port, arguments.proxy);
    let options = WebOptions {
        name: arguments.name,
        port,
        proxy,
        keep_alive: arguments.keep_alive.map(Duration::from_secs),
    };
    let outcome = match arguments.certificates {
        Some(folder) if !arguments.talk => Pki::open(&folder).and_then(|pki| serve(&pki, options)),
        _ => talk::server::serve(port, proxy),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-server: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}
