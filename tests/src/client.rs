//! Clients: programs that nobody here wrote (curl, OpenSSL, Python, Java), and rustls, whose
//! handshake with a post-quantum key does not fit into one segment.

pub mod programs;
pub mod tls;

pub use programs::{Curl, Fetched};
pub use tls::{Crypto, TlsClient};
