//! The words for what went wrong in a handshake: "it" is the other side.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use crate::model::Timestamp;

/// What went wrong on a TLS stream; `None` where TLS has nothing to do with it. `trusted` says whom we trust.
pub fn fault(error: &io::Error, trusted: &str) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(fault) => certificate(fault, trusted),
        Error::NoCertificatesPresented => "it shows no client certificate, and one is asked for".to_owned(),
        Error::InvalidMessage(_) => "it does not speak TLS: what came is something else".to_owned(),
        Error::PeerIncompatible(_) => "it has no version or cipher of TLS in common with us; 1.2 and 1.3 are spoken here".to_owned(),
        Error::AlertReceived(alert) => refusal(*alert),
        other => other.to_string(),
    })
}

fn certificate(fault: &CertificateError, trusted: &str) -> String {
    match fault {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("its certificate expired on {}; the clock here says {}", moment(*not_after), moment(*time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let (begin, now) = (moment(*not_before), moment(*time));
            format!("its certificate is not valid before {begin}, and the clock here says {now}: is it right?")
        }
        CertificateError::UnknownIssuer => format!("its certificate is signed by no authority that is trusted here ({trusted})"),
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => {
            format!("its certificate names no host (no subject alternative name), and should name {}", expected.to_str())
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("its certificate is for {}, not for {}", presented.join(", "), expected.to_str())
        }
        CertificateError::BadSignature => "its certificate is not signed by the authority it names".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is for another purpose (extended key usage)".to_owned()
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is an authority's own (CA:TRUE); it needs one of a server, signed by that authority".to_owned()
        }
        other => format!("its certificate can't be accepted: {other}"),
    }
}

fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "it asks for a client certificate".to_owned(),
        AlertDescription::HandshakeFailure => "it refused the handshake; does it ask for a client certificate?".to_owned(),
        AlertDescription::UnknownCA => "it does not know the authority that signed our certificate".to_owned(),
        AlertDescription::BadCertificate => "it does not accept our certificate".to_owned(),
        AlertDescription::CertificateExpired => "it says that our certificate has expired, or is not valid yet".to_owned(),
        other => format!("it refused the handshake: {other:?}"),
    }
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}
