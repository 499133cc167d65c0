//! A certificate authority that lives as long as the lab.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::{Context, Error, Result};

/// The names of the lab's server certificate.
pub const NAMES: [&str; 7] = [
    "example.org",
    "*.example.org",
    "*.apps.example.org",
    "*.deep.apps.example.org",
    "*.example.net",
    "example.net",
    "localhost",
];

/// The authority's and the servers' certificate, as files and as values.
#[derive(Debug)]
pub struct Pki {
    /// The authority's certificate, PEM.
    pub authority: PathBuf,
    /// The servers' certificate, PEM.
    pub certificate: PathBuf,
    /// The servers' private key, PEM.
    pub key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants it.
    pub combined: PathBuf,
    /// The servers' certificate.
    pub chain: Vec<CertificateDer<'static>>,
    /// What clients trust.
    pub roots: Arc<RootCertStore>,
    key_der: Vec<u8>,
}

impl Pki {
    /// Makes an authority and one certificate for [`NAMES`], and writes them into a folder.
    pub fn create(folder: &Path) -> Result<Self> {
        Self::create_for(folder, &NAMES, None)
    }

    /// The same for other names, and with a certificate that expires on the first day of a year.
    pub fn create_for(folder: &Path, names: &[&str], until: Option<i32>) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "forwarder lab authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        if let Some(year) = until {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        }
        params
            .distinguished_name
            .push(DnType::CommonName, "forwarder lab server");
        let certificate = params.signed_by(&key, &authority)?;

        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).context(|| format!("writing {}", path.display()))?;
            Ok::<_, crate::Error>(path)
        };
        Ok(Self {
            authority: write("authority.pem", &authority.pem())?,
            certificate: write("certificate.pem", &certificate.pem())?,
            key: write("key.pem", &key.serialize_pem())?,
            combined: write(
                "combined.pem",
                &format!("{}{}", certificate.pem(), key.serialize_pem()),
            )?,
            chain: vec![certificate.der().clone()],
            roots: Arc::new(roots),
            key_der: key.serialize_der(),
        })
    }

    /// Reads what [`Pki::create`] wrote.
    pub fn open(folder: &Path) -> Result<Self> {
        let paths = [
            "authority.pem",
            "certificate.pem",
            "key.pem",
            "combined.pem",
        ]
        .map(|name| folder.join(name));
        let [authority, certificate, key, combined] = paths;
        let unreadable = |path: &Path| {
            let what = path.display().to_string();
            move |error: rustls::pki_types::pem::Error| Error::Unintelligible {
                what,
                text: error.to_string(),
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&authority).map_err(unreadable(&authority))?)?;
        let chain =
            vec![CertificateDer::from_pem_file(&certificate).map_err(unreadable(&certificate))?];
        let private = PrivatePkcs8KeyDer::from_pem_file(&key).map_err(unreadable(&key))?;
        let key_der = private.secret_pkcs8_der().to_vec();
        Ok(Self {
            authority,
            certificate,
            key,
            combined,
            chain,
            roots: Arc::new(roots),
            key_der,
        })
    }

    /// The servers' private key.
    #[must_use]
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()))
    }
}
