//! TLS of health checks: any certificate passes the handshake, so that its expiry is seen; whether it is
//! valid is judged afterwards, and only if asked. The signature of the handshake is always verified.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tracing::warn;

/// What checks with TLS need; made once for each pool.
#[derive(Debug)]
pub struct Trust {
    /// With ALPN `http/1.1`, for any number of connections.
    pub http: Arc<ClientConfig>,
    provider: Arc<CryptoProvider>,
    /// Judges certificates; `None` where nobody asks, or this machine has no roots.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl Trust {
    /// With this machine's roots, if certificates are to be verified.
    pub fn new(verify: bool) -> Result<Self, Error> {
        Self::with_roots(verify.then(native_roots))
    }

    /// With these roots.
    pub fn with_roots(roots: Option<RootCertStore>) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        Ok(Self {
            http: Arc::new(Witness::new(&provider).config(true)?),
            verifier: roots.and_then(|roots| verifier(roots, Arc::clone(&provider))),
            provider,
        })
    }

    /// What sees one handshake.
    pub fn witness(&self) -> Arc<Witness> {
        Witness::new(&self.provider)
    }
}

fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn verifier(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Option<Arc<WebPkiServerVerifier>> {
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built
        .map_err(|error| warn!(%error, "no certificate can be verified: this machine has no roots"))
        .ok()
}

/// Judges a node's certificate.
pub fn verify(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
) -> Result<(), Error> {
    verify_at(trust, chain, name, SystemTime::now())
}

/// The same at another time.
pub fn verify_at(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    at: SystemTime,
) -> Result<(), Error> {
    let Some(verifier) = &trust.verifier else {
        return Err(Error::General(String::from("this machine has no roots")));
    };
    let (leaf, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let at = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let at = UnixTime::since_unix_epoch(at);
    verifier.verify_server_cert(leaf, others, name, &[], at)?;
    Ok(())
}

/// Takes any certificate, has none of its own, and remembers what the server showed and asked for, also where the
/// handshake ends before its time.
#[derive(Debug)]
pub struct Witness {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
    asked: AtomicBool,
}

impl Witness {
    fn new(provider: &Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self {
            provider: Arc::clone(provider),
            chain: Mutex::default(),
            asked: AtomicBool::new(false),
        })
    }

    /// For one connection; `http` offers ALPN `http/1.1`.
    pub fn config(self: &Arc<Self>, http: bool) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Self>::clone(self))
            .with_client_cert_resolver(Arc::<Self>::clone(self));
        // Each check makes a whole handshake: that is what clients will do.
        config.resumption = rustls::client::Resumption::disabled();
        if http {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(config)
    }

    /// What the server showed, its own certificate first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        chain.clone()
    }

    /// Whether it wanted a certificate of the client.
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Witness {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        // Else nobody would be told that there was a question.
        true
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = std::iter::once(end_entity).chain(intermediates);
        let shown = shown.map(|own| own.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
