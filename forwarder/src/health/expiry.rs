//! When an X.509 certificate expires: `notAfter` of RFC 5280 4.1.2.5, read straight from the DER.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The time after which a certificate is no longer valid; `None` if it cannot be read.
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, after)) = element(rest, VERSION) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = any(rest)?.2;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, text, _) = any(rest)?;
    time(tag, text)
}

fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (own, content, rest) = any(bytes)?;
    (own == tag).then_some((content, rest))
}

/// Tag, content and what follows.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        let length = digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, or with a four-digit year.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let digits = match tag {
        UTC_TIME => {
            let century = if text.get(..2)? < "50" { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    if digits.len() != 14 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let written = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &digits[..4],
        &digits[4..6],
        &digits[6..8],
        &digits[8..10],
        &digits[10..12],
        &digits[12..]
    );
    humantime::parse_rfc3339(&written).ok()
}

/// Whole seconds since 1970.
pub fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expiry_of(year: i32) -> Option<String> {
        let mut params = rcgen::CertificateParams::new(vec![String::from("a.example")]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let time = not_after(certificate.der())?;
        Some(humantime::format_rfc3339_seconds(time).to_string())
    }

    #[test]
    fn both_forms_of_time_are_read() {
        assert_eq!(expiry_of(2027).as_deref(), Some("2027-03-04T00:00:00Z"));
        assert_eq!(expiry_of(2061).as_deref(), Some("2061-03-04T00:00:00Z"));
    }

    #[test]
    fn what_is_no_certificate_has_no_expiry() {
        let mut params = rcgen::CertificateParams::new(vec![String::from("a.example")]).unwrap();
        params.not_after = rcgen::date_time_ymd(2027, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        let whole = params.self_signed(&key).unwrap();
        for length in 0..whole.der().len() {
            assert_eq!(not_after(&whole.der()[..length]), None, "{length} bytes");
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
