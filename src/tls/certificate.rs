//! When a certificate of our own is valid. rustls checks others' certificates and never ours, so that a door whose
//! certificate has run out would only be noticed by those who stay away.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::model::Timestamp;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, the version: left out in certificates of version 1.
const VERSION: u8 = 0xa0;

/// The first and the last moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Validity {
    /// Of a certificate in DER (RFC 5280, 4.1); `None` if it can't be read.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (body, _) = element(certificate, SEQUENCE)?;
        let (mut fields, _) = element(body, SEQUENCE)?;
        if fields.first() == Some(&VERSION) {
            fields = next(fields)?.2;
        }
        // Serial number, signature, issuer.
        for _ in 0..3 {
            fields = next(fields)?.2;
        }
        let (validity, _) = element(fields, SEQUENCE)?;
        let (kind, begin, rest) = next(validity)?;
        let not_before = moment(kind, begin)?;
        let (kind, end, _) = next(rest)?;
        Some(Self { not_before, not_after: moment(kind, end)? })
    }

    /// What is wrong with it at `now`.
    pub fn fault(&self, now: Timestamp) -> Option<String> {
        if now > self.not_after {
            return Some(format!("expired on {}", self.not_after));
        }
        (now < self.not_before).then(|| format!("is not valid before {}, and the clock says {now}", self.not_before))
    }
}

/// Tag, contents and what follows of the first element.
fn next(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match usize::from(first) {
        short @ 0..0x80 => (short, rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(long & 0x7f)?;
            let length = bytes.iter().try_fold(0_usize, |length, byte| length.checked_mul(256)?.checked_add(usize::from(*byte)))?;
            (length, rest)
        }
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// Contents and what follows of the first element, which has the tag `wanted`.
fn element(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    next(der).filter(|(tag, ..)| *tag == wanted).map(|(_, contents, rest)| (contents, rest))
}

/// `YYMMDDHHMMSSZ` (1950 to 2049) or `YYYYMMDDHHMMSSZ`.
fn moment(kind: u8, text: &[u8]) -> Option<Timestamp> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let full = match kind {
        UTC_TIME if digits < "50" => format!("20{digits}"),
        UTC_TIME => format!("19{digits}"),
        GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    let moment = DateTime::strptime("%Y%m%d%H%M%S", &full).ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp(moment.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(years: (i32, i32)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["gw".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 2);
        params.not_after = rcgen::date_time_ymd(years.1, 3, 4);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn moment(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn both_ends_are_read_in_either_form_of_time() {
        for (begin, end) in [(1975, 2031), (2020, 4096)] {
            let validity = Validity::of(&certificate((begin, end))).unwrap();
            assert_eq!(validity.not_before, moment(&format!("{begin}-01-02T00:00:00Z")));
            assert_eq!(validity.not_after, moment(&format!("{end}-03-04T00:00:00Z")));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_moment() {
        let validity = Validity::of(&certificate((2020, 2031))).unwrap();
        assert_eq!(validity.fault(moment("2025-01-01T00:00:00Z")), None);
        assert!(validity.fault(moment("2032-01-01T00:00:00Z")).unwrap().starts_with("expired on 2031-03-04"));
        let early = validity.fault(moment("1970-01-01T00:00:00Z")).unwrap();
        assert!(early.contains("2020-01-02") && early.contains("1970-01-01"), "{early}");
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let whole = certificate((2020, 2031));
        for length in 0..whole.len().min(200) {
            Validity::of(&whole[..length]);
        }
        assert_eq!(Validity::of(&whole[..60]), None);
        assert_eq!(Validity::of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(Validity::of(&[]), None);
    }
}
