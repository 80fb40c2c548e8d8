//! Certificates for tests: authorities, and what they sign, as PEM files in a folder of the test's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// First and last year of what is valid for as long as anybody runs these tests.
const ALWAYS: (i32, i32) = (2020, 4096);

/// A certificate's file and its key's.
#[derive(Debug, Clone)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// One that signs.
pub struct Authority {
    folder: PathBuf,
    pub pair: Pair,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

fn params(name: &str, years: (i32, i32), hosts: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}

fn write(folder: &Path, name: &str, cert: &str, key: &KeyPair) -> Pair {
    let pair = Pair { cert: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}-key.pem")) };
    fs::write(&pair.cert, cert).unwrap();
    fs::write(&pair.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).unwrap();
    pair
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = params(name, ALWAYS, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pair = write(folder, name, &issuer.pem(), issuer.key());
        Self { folder: folder.to_owned(), pair, issuer }
    }

    /// For this machine, and for clients: this is not about extended key usage.
    pub fn sign(&self, name: &str) -> Pair {
        self.sign_for(name, ALWAYS, &["localhost", "127.0.0.1"])
    }

    pub fn sign_for(&self, name: &str, years: (i32, i32), hosts: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params(name, years, hosts).signed_by(&key, &self.issuer).unwrap();
        write(&self.folder, name, &certificate.pem(), &key)
    }
}
