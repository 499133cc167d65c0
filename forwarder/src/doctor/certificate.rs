//! The certificate that a node shows for a name: its dates, its names, and whether this machine trusts it. Each is
//! judged by itself: a self-signed certificate may be right in the first two.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::catalog::Code;
use super::finding::{Finding, Fix};
use super::probe::Preface;
use crate::health::expiry;
use crate::health::tls::{self, Trust};

/// Authorities renew long before that.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// The command that shows what a node says for a name, with a PROXY header where its server wants one: `openssl`
/// sends none.
pub fn show(server: SocketAddr, name: &str, preface: Preface) -> String {
    match preface {
        Preface::Bare => format!(
            "openssl s_client -connect {server} -servername {name} </dev/null | openssl x509 -noout -subject -ext subjectAltName -dates"
        ),
        Preface::Proxy => format!(
            "curl -sv -o /dev/null --haproxy-protocol --connect-to ::{server} https://{name}/"
        ),
    }
}

/// What is wrong with a chain, and when its certificate expires.
pub fn judge(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    name: &str,
    (server, preface): (SocketAddr, Preface),
    now: SystemTime,
) -> (Vec<Finding>, Option<SystemTime>) {
    let Some(leaf) = chain.first() else {
        return (Vec::new(), None);
    };
    let subject = format!("{name} at {server}");
    let look = Fix::node(format!(
        "renew it; `{}` shows it from here",
        show(server, name, preface)
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
    // What is expired has been said: whom it leads to is asked of a day when it was valid. What is misnamed would be
    // refused for its name alone.
    let valid = expires.filter(|expires| *expires < now);
    let at = valid.map_or(now, |expires| expires - Duration::from_secs(1));
    let misnamed = findings.iter().any(|own| own.code == Code::CertificateName);
    if !misnamed && let Err(error) = tls::verify_at(trust, chain, &asked, at) {
        let why = distrust(&error);
        findings.push(
            Finding::warning(
                Code::CertificateTrust,
                subject,
                format!("this machine does not trust it: {why}"),
            )
            .fix(Fix::advice(
                "fine with an authority of your own; SSL_CERT_FILE names its certificate",
            )),
        );
    }
    (findings, expires)
}

/// The library's reason in the field's words.
fn distrust(error: &rustls::Error) -> String {
    let said = error.to_string();
    if said.contains("CaUsedAsEndEntity") {
        return String::from("self-signed");
    }
    if matches!(
        error,
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)
    ) {
        return String::from("self-signed, or of an authority that is not among this machine's");
    }
    said
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
        let node = ("10.0.0.2:443".parse().unwrap(), Preface::Bare);
        let (findings, expires) = judge(&trust, &chain, asked, node, SystemTime::now());
        assert!(expires.is_some());
        assert!(findings.iter().all(|own| !own.fixes.is_empty()));
        findings.iter().map(|own| own.code.word()).collect()
    }

    #[test]
    fn commands_and_reasons_help() {
        let node = "[fd00::2]:8443".parse().unwrap();
        let show = |preface| show(node, "a.example.org", preface);
        assert!(show(Preface::Proxy).contains("--haproxy-protocol --connect-to ::[fd00::2]:8443 "));
        assert!(show(Preface::Bare).contains("-connect [fd00::2]:8443 -servername a.example.org"));
        let error = rustls::Error::General(String::from("x: CaUsedAsEndEntity"));
        assert_eq!(distrust(&error), "self-signed");
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
            codes((2020, 2021), "a.example.org", false),
            ["certificate-expired", "certificate-trust"],
            "an expiry does not hide distrust"
        );
        assert_eq!(
            codes((2020, 2021), "b.example.org", false),
            ["certificate-expired", "certificate-name"]
        );
    }
}
