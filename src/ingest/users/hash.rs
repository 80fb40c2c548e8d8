//! Passwords: hashed and compared by Argon2id.

use argon2::password_hash::{PasswordHashString, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

/// One of the settings that OWASP holds to be equally strong, and the one that takes least memory: 7 MiB for a moment, of
/// a daemon that has 60. A Pi 3 takes a quarter of a second for it.
const MEMORY_KIB: u32 = 7 << 10;
const PASSES: u32 = 5;

/// What a hash made elsewhere may cost at most.
const MAX_MEMORY_KIB: u32 = 32 << 10;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;

/// The hash of a password, with its salt and its cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash(PasswordHashString);

impl Hash {
    /// Reads `$argon2id$v=19$m=...,t=...,p=...$salt$hash`.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let hash = PasswordHashString::new(text).map_err(|_| "it is no password hash; make one with `forebay user add`".to_owned())?;
        if hash.algorithm() != Algorithm::Argon2id.ident() {
            return Err(format!("its hash is made by {}, only argon2id is taken; make one with `forebay user add`", hash.algorithm()));
        }
        let parts = hash.password_hash();
        let params = Params::try_from(&parts).map_err(|error| format!("its hash has unusable parameters: {error}"))?;
        if parts.salt.is_none() || parts.hash.is_none() {
            return Err("its hash is incomplete; make one with `forebay user add`".to_owned());
        }
        if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
            return Err(format!("its hash costs too much for a gateway: at most m={MAX_MEMORY_KIB}, t={MAX_PASSES}, p={MAX_LANES}"));
        }
        Ok(Self(hash))
    }

    /// Whether `password` is the one. Takes its time and memory.
    pub fn is_of(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &self.0.password_hash()).is_ok()
    }

    /// As in the file.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Hashes `password` with a salt of its own.
///
/// # Errors
/// What the library says; no password causes it.
pub fn hash(password: &[u8]) -> Result<Hash, String> {
    with_cost(password, MEMORY_KIB, PASSES)
}

fn with_cost(password: &[u8], memory_kib: u32, passes: u32) -> Result<Hash, String> {
    let failed = |error: argon2::password_hash::Error| format!("the password can't be hashed: {error}");
    let params = Params::new(memory_kib, passes, 1, None).map_err(|error| failed(error.into()))?;
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(failed)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(password, &salt).map_err(failed)?;
    Ok(Hash(hash.serialize()))
}

/// A hash that costs next to nothing.
#[cfg(test)]
pub(in crate::ingest) fn cheap(password: &str) -> Hash {
    with_cost(password.as_bytes(), 8, 1).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_fits_its_hash() {
        let first = hash(b"s3cret").unwrap();
        let again = Hash::parse(first.as_str()).unwrap();
        assert!(again.is_of(b"s3cret"));
        assert!(!again.is_of(b"s3cret ") && !again.is_of(b""));
        assert_ne!(hash(b"s3cret").unwrap(), first, "each has its own salt");
        assert!(first.as_str().starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{first:?}");
    }

    #[test]
    fn hashes_of_other_tools_are_refused_with_the_reason_and_not_shown() {
        for (text, reason) in [
            ("s3cret", "no password hash"),
            ("", "no password hash"),
            ("$7$101$AAAA$BBBB", "no password hash"),
            ("$argon2i$v=19$m=4096,t=3,p=1$c29tZXNhbHQ$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A", "argon2i,"),
            ("$argon2id$v=19$m=4096,t=3,p=1$c29tZXNhbHQ", "incomplete"),
            ("$argon2id$v=19$m=1048576,t=3,p=1$c29tZXNhbHQ$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A", "too much"),
            ("$argon2id$v=19$m=64,t=4000000,p=1$c29tZXNhbHQ$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A", "too much"),
        ] {
            let refusal = Hash::parse(text).unwrap_err();
            assert!(refusal.contains(reason) && !refusal.contains("s3cret"), "{text}: {refusal}");
        }
    }
}
