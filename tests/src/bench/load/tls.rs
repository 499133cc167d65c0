//! TLS of both ends of the bench: ring, TLS 1.3, an ECDSA certificate.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, ServerConfig};

use super::server::ServerTls;
use crate::error::Result;
use crate::pki::Pki;

/// Whether a client takes up former sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// A full handshake each time.
    Full,
    /// A ticket of a former connection wherever there is one.
    Resumed,
}

/// The server's side; it hands out two tickets a connection.
pub(super) fn server(pki: &Pki) -> Result<ServerTls> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(pki.chain.clone(), pki.private_key())?;
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// The client's side.
pub fn client(pki: &Pki, session: Session) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::clone(&pki.roots))
        .with_no_client_auth();
    if session == Session::Full {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}
