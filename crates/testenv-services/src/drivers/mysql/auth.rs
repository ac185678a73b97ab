//! How a password is proved to a server.

use num_bigint::BigUint;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// MariaDB's usual plugin, and MySQL's before 8.
pub(super) const NATIVE: &str = "mysql_native_password";
/// MySQL's usual plugin since 8.
pub(super) const CACHING_SHA2: &str = "caching_sha2_password";

/// Answer of [`CACHING_SHA2`]: the proof was enough.
pub(super) const FAST_OK: u8 = 3;
/// Answer of [`CACHING_SHA2`]: the password itself is needed, once.
pub(super) const FULL: u8 = 4;

/// Longest key that is used, in bytes: RSA of 8192 bits.
const MAX_KEY: usize = 1024;

/// The proof that the password is known, for a plugin; `None` if the plugin is unknown.
pub(super) fn prove(plugin: &str, password: &[u8], salt: &[u8]) -> Option<Vec<u8>> {
    match plugin {
        NATIVE | CACHING_SHA2 if password.is_empty() => Some(Vec::new()),
        NATIVE => {
            let once = Sha1::digest(password);
            let mask = Sha1::new().chain_update(salt).chain_update(Sha1::digest(once)).finalize();
            Some(xor(&once, &mask))
        }
        CACHING_SHA2 => {
            let once = Sha256::digest(password);
            let mask = Sha256::new().chain_update(Sha256::digest(once)).chain_update(salt).finalize();
            Some(xor(&once, &mask))
        }
        _ => None,
    }
}

/// The password for [`CACHING_SHA2`], masked with the salt and encrypted with the server's public key, a PEM:
/// RSA with the padding OAEP. `None` if it is no such key.
pub(super) fn encrypt(password: &[u8], salt: &[u8], pem: &[u8]) -> Option<Vec<u8>> {
    if salt.is_empty() {
        return None;
    }
    let (modulus, exponent) = read_key(pem)?;
    let masked: Vec<u8> =
        password.iter().chain(&[0]).zip(salt.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let mut seed = [0; 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").ok()?, &mut seed).ok()?;
    let padded = pad(&masked, &seed, modulus.len())?;
    let number = |bytes: &[u8]| BigUint::from_bytes_be(bytes);
    let secret = number(&padded).modpow(&number(&exponent), &number(&modulus)).to_bytes_be();
    let mut out = vec![0; modulus.len() - secret.len()];
    out.extend_from_slice(&secret);
    Some(out)
}

/// Pads a message to `length` bytes with OAEP of SHA-1 (RFC 8017, 7.1.1).
fn pad(message: &[u8], seed: &[u8; 20], length: usize) -> Option<Vec<u8>> {
    let mut data = Sha1::digest(b"").to_vec();
    data.resize(length.checked_sub(seed.len() + 2 + message.len())?, 0);
    data.push(1);
    data.extend_from_slice(message);
    let data = xor(&data, &mask(seed, data.len()));
    let seed = xor(seed, &mask(&data, seed.len()));
    (data.len() + seed.len() + 1 == length).then(|| [&[0], seed.as_slice(), &data].concat())
}

/// The mask MGF1 of SHA-1.
fn mask(seed: &[u8], length: usize) -> Vec<u8> {
    let blocks =
        (0_u32..).map(|number| Sha1::new().chain_update(seed).chain_update(number.to_be_bytes()).finalize());
    blocks.flatten().take(length).collect()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(a, b)| a ^ b).collect()
}

/// Modulus and exponent of a public key of RSA.
fn read_key(pem: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 3;
    const INTEGER: u8 = 2;
    let text = std::str::from_utf8(pem).ok()?;
    let body = text.split("-----").nth(2)?;
    let encoded: String = body.chars().filter(|c| !c.is_whitespace()).take(4 * MAX_KEY).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).ok()?;
    let (outer, _) = element(SEQUENCE, &der)?;
    let (_algorithm, rest) = element(SEQUENCE, outer)?;
    let (bits, _) = element(BIT_STRING, rest)?;
    let (numbers, _) = element(SEQUENCE, bits.strip_prefix(&[0])?)?;
    let (modulus, rest) = element(INTEGER, numbers)?;
    let (exponent, _) = element(INTEGER, rest)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    // Four bytes are enough for any exponent in use, and a longer one would only take time.
    let usable =
        (1..=MAX_KEY).contains(&modulus.len()) && modulus[0] != 0 && (1..=4).contains(&exponent.len());
    usable.then(|| (modulus.to_vec(), exponent.to_vec()))
}

/// The first element of DER, of which it is known what it is, and what comes after it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = der else { return None };
    let (length, rest) = match length {
        short @ 0..=0x7f => (usize::from(*short), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of 1024 bits, made for this test.
    const PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----\n\
          MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDXtIHfaTSNNitlH2rwZFkrSH2Z\n\
          xHtu1pwauer5ow35u9++JB+U7ZMVYmaILaOKPjf8a6aABTZo329U7LVzBwmuGapw\n\
          Y0/vzsQdykIcST3S+YQjgCyq8+5WlCu3vS5MSmI1WZxF1pXyI2jB3rG+g5eQ9U/b\n\
          KUnu1qKkoJoyONAvKwIDAQAB\n\
          -----END PUBLIC KEY-----\n";
    const PRIVATE: &str = "48e74335c512f3df290f866cd84eb22c84d59e90dfbef85dce52a3ee3783d3b201cefbda88b53b0ef13102399a9a70a8ef715ad6cdec33c9c0910d67ce36c4b82a11802cb7fe961e2184f99034acb7323ad446ce136fb30f01164c0dcace1ab2f492767275341cd4be31993cc59c8c28063fa5900dfa13e508d422b16c0f44f1";

    fn hex(bytes: &[u8]) -> String {
        crate::inputs::hex(bytes)
    }

    #[test]
    fn proofs_are_those_of_the_reference_clients() {
        let salt = b"0123456789abcdefghij";
        let proof = |plugin| hex(&prove(plugin, b"secret", salt).unwrap());
        assert_eq!(proof(NATIVE), "f5cac3f3b3df2133feb57db682c71e6ed433a988");
        assert_eq!(proof(CACHING_SHA2), "7e4adda2f2d5ef09b4147518becb0cee2939376203650a8c2bb2815959364bd0");
        assert_eq!(prove(NATIVE, b"", salt).unwrap(), b"");
        assert_eq!(prove("client_ed25519", b"secret", salt), None);
    }

    #[test]
    fn who_has_the_private_key_reads_the_password() {
        let salt = b"0123456789abcdefghij";
        let secret = encrypt(b"secret", salt, PEM).unwrap();
        let (modulus, _) = read_key(PEM).unwrap();
        assert_eq!(secret.len(), modulus.len());
        let private = BigUint::parse_bytes(PRIVATE.as_bytes(), 16).unwrap();
        let padded = BigUint::from_bytes_be(&secret).modpow(&private, &BigUint::from_bytes_be(&modulus));
        let padded = padded.to_bytes_be();
        let (seed, data) = padded.split_at(20);
        let seed: [u8; 20] = xor(seed, &mask(data, 20)).try_into().unwrap();
        let data = xor(data, &mask(&seed, data.len()));
        let masked = data.strip_suffix(xor(b"secret\0", salt).as_slice()).unwrap();
        assert_eq!((masked[..20].to_vec(), masked.last()), (Sha1::digest(b"").to_vec(), Some(&1)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let text = std::str::from_utf8(PEM).unwrap();
        for end in 0..text.rfind("\n-----END").unwrap() {
            let key = read_key(format!("{}\n-----END PUBLIC KEY-----\n", &text[..end]).as_bytes());
            assert_eq!(key, None, "{end}");
        }
        for pem in
            ["", "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n", "\u{fffd}----- ----- -----"]
        {
            assert_eq!(read_key(pem.as_bytes()), None, "{pem}");
        }
        assert_eq!(encrypt(&[b'x'; 200], b"salt", PEM), None, "longer than the key");
        assert_eq!(encrypt(b"x", b"", PEM), None);
    }
}
