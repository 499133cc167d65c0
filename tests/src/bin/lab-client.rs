//! The lab's rustls client as a program of its own: one request, told as JSON.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use forwarder_tests::client::tls::{Crypto, TlsClient, client_hello, config};
use forwarder_tests::error::Context;
use forwarder_tests::pki::Pki;
use forwarder_tests::{Error, Result};
use serde_json::json;

/// An HTTPS client with a post-quantum or a classic ClientHello.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to connect to.
    address: SocketAddr,
    /// The name in the ClientHello.
    name: String,
    /// What to fetch from the lab's web server.
    #[arg(default_value = "/")]
    path: String,
    /// Upload this many bytes instead.
    #[arg(long)]
    upload: Option<u64>,
    /// The cryptography.
    #[arg(long, value_enum, default_value_t = Offer::PostQuantum)]
    crypto: Offer,
    /// The folder with the lab's certificates.
    #[arg(long)]
    certificates: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Offer {
    /// A hello of about 1,500 bytes, in two segments.
    PostQuantum,
    /// A hello of about 260 bytes.
    Classic,
}

fn main() -> ExitCode {
    match work(&Arguments::parse()) {
        Ok(answer) => {
            println!("{answer:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lab-client: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: &Arguments) -> Result<serde_json::Value> {
    let crypto = match arguments.crypto {
        Offer::PostQuantum => Crypto::PostQuantum,
        Offer::Classic => Crypto::Classic,
    };
    let config = config(&Pki::open(&arguments.certificates)?, crypto, &["http/1.1"])?;
    let hello = client_hello(&config, &arguments.name)?.len();
    let begin = Instant::now();
    let socket = std::net::TcpStream::connect(arguments.address)
        .context(|| format!("connecting to {}", arguments.address))?;
    let mut client = TlsClient::over(socket, &config, &arguments.name)?;
    let connected = begin.elapsed().as_secs_f64();
    let mut answer = match arguments.upload {
        Some(length) => json!(client.upload("/", 1, length)?),
        None if arguments.path == "/" => json!(client.report()?),
        None => {
            let (bytes, sha256) = client.download(&arguments.path)?;
            json!({ "bytes": bytes, "sha256": sha256 })
        }
    };
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("hello_bytes".to_owned(), json!(hello));
        fields.insert("handshake_seconds".to_owned(), json!(connected));
        fields.insert("seconds".to_owned(), json!(begin.elapsed().as_secs_f64()));
    } else {
        return Err(Error::Unintelligible {
            what: "the answer".to_owned(),
            text: answer.to_string(),
        });
    }
    Ok(answer)
}
