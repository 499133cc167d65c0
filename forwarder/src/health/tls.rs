//! TLS of health checks: any certificate passes the handshake, so that its expiry is seen; whether it is
//! valid is judged afterwards, and only if asked. The signature of the handshake is always verified.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tracing::warn;

/// What checks with TLS need; made once for each pool.
#[derive(Debug)]
pub struct Trust {
    /// Without ALPN.
    pub plain: Arc<ClientConfig>,
    /// With ALPN `http/1.1`.
    pub http: Arc<ClientConfig>,
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
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let mut plain = builder
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(Arc::clone(&provider))))
            .with_no_client_auth();
        // Each check makes a whole handshake: that is what clients will do.
        plain.resumption = rustls::client::Resumption::disabled();
        let mut http = plain.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            plain: Arc::new(plain),
            http: Arc::new(http),
            verifier: roots.and_then(|roots| verifier(roots, provider)),
        })
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

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
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
            &self.0.signature_verification_algorithms,
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
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
