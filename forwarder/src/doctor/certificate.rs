//! The certificate that a node shows for a name: its dates, its names, and whether this machine trusts it. Each is
//! judged by itself: a self-signed certificate may be right in the first two.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::catalog::Code;
use super::finding::{Finding, Fix};
use crate::health::expiry;
use crate::health::tls::{self, Trust};

/// Authorities renew long before that.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// What is wrong with a chain, and when its certificate expires. `server` names the node.
pub fn judge(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    name: &str,
    server: &str,
    now: SystemTime,
) -> (Vec<Finding>, Option<SystemTime>) {
    let Some(leaf) = chain.first() else {
        return (Vec::new(), None);
    };
    let subject = format!("{name} at {server}");
    let look = Fix::node(format!(
        "renew it; `openssl s_client -connect {server} -servername {name} </dev/null | openssl x509 -noout -subject -ext subjectAltName -dates` shows it"
    ));
    let mut findings = Vec::new();
    let expires = expiry::not_after(leaf);
    if let Some(expires) = expires {
        let date = humantime::format_rfc3339_seconds(expires);
        match expires.duration_since(now) {
            Err(_) => findings.push(
                Finding::failure(
                    Code::CertificateExpired,
                    subject.as_str(),
                    format!("expired at {date}"),
                )
                .fix(look.clone()),
            ),
            Ok(left) if left < SOON => {
                let days = left.as_secs() / 86_400;
                findings.push(
                    Finding::warning(
                        Code::CertificateExpired,
                        subject.as_str(),
                        format!("expires in {days} days, at {date}"),
                    )
                    .fix(look.clone()),
                );
            }
            Ok(_) => {}
        }
    }
    let Ok(asked) = ServerName::try_from(name) else {
        return (findings, expires);
    };
    let named = ParsedCertificate::try_from(leaf)
        .and_then(|leaf| rustls::client::verify_server_name(&leaf, &asked));
    if let Err(error) = named {
        findings.push(
            Finding::failure(
                Code::CertificateName,
                subject.as_str(),
                format!("not valid for this name ({error})"),
            )
            .fix(Fix::node(format!(
                "a certificate that names {name}; with cert-manager: add it to `dnsNames`"
            )))
            .fix(Fix::here(format!("forwarder route rm {name} --persist"))),
        );
    }
    // What is expired or misnamed has been said; the rest is whom it leads to.
    if findings.is_empty()
        && let Err(error) = tls::verify(trust, chain, &asked)
    {
        findings.push(
            Finding::warning(
                Code::CertificateTrust,
                subject,
                format!("this machine does not trust it ({error})"),
            )
            .fix(Fix::advice(
                "fine with an authority of your own; SSL_CERT_FILE names its certificate",
            )),
        );
    }
    (findings, expires)
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;

    use super::*;

    /// Codes for a certificate that is valid for `a.example.org` in these years.
    fn codes(years: (i32, i32), asked: &str, trusted: bool) -> Vec<&'static str> {
        let names = vec![String::from("a.example.org")];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(own.der().clone()).unwrap();
        } else {
            let other = rcgen::generate_simple_self_signed(vec![String::from("x")]).unwrap();
            roots.add(other.cert.der().clone()).unwrap();
        }
        let trust = Trust::with_roots(Some(roots)).unwrap();
        let chain = [own.der().clone()];
        let (findings, expires) = judge(&trust, &chain, asked, "10.0.0.2:443", SystemTime::now());
        assert!(expires.is_some());
        assert!(findings.iter().all(|own| !own.fixes.is_empty()));
        findings.iter().map(|own| own.code.word()).collect()
    }

    #[test]
    fn dates_names_and_trust_are_told_apart() {
        assert_eq!(codes((2020, 2060), "a.example.org", true), [""; 0]);
        assert_eq!(
            codes((2020, 2021), "a.example.org", true),
            ["certificate-expired"]
        );
        assert_eq!(
            codes((2020, 2060), "b.example.org", true),
            ["certificate-name"]
        );
        assert_eq!(
            codes((2020, 2060), "a.example.org", false),
            ["certificate-trust"]
        );
        assert_eq!(
            codes((2020, 2021), "b.example.org", false),
            ["certificate-expired", "certificate-name"]
        );
    }
}
