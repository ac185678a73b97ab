//! Signatures of requests to S3: version 4 of Amazon's scheme.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::inputs::hex;

/// The region that everything here is in.
const REGION: &str = "us-east-1";

/// A request to be signed.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Encoded, without the query.
    pub(super) path: &'a str,
    /// Encoded, its parts sorted.
    pub(super) query: &'a str,
    /// Further headers, in small letters.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

impl Request<'_> {
    /// The lines of all headers but `host`, with the signature.
    pub(super) fn sign(&self, host: &str, access_key: &str, secret_key: &str, at: SystemTime) -> String {
        let (time, body) = (timestamp(at), hex(&Sha256::digest(self.body)));
        let mut headers: BTreeMap<&str, &str> = self.headers.iter().copied().collect();
        headers.extend([("x-amz-content-sha256", body.as_str()), ("x-amz-date", &time)]);
        let mut lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        headers.insert("host", host);
        let names = headers.keys().copied().collect::<Vec<_>>().join(";");
        let canonical: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let Self { method, path, query, .. } = self;
        let request = format!("{method}\n{path}\n{query}\n{canonical}\n{names}\n{body}");
        let day = &time[..8];
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request)));
        let key = [day, REGION, "s3", "aws4_request"]
            .iter()
            .fold(format!("AWS4{secret_key}").into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &text));
        lines.push_str(&format!(
            "authorization: AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, \
             Signature={signature}\r\n"
        ));
        lines
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `20130524T000000Z`.
fn timestamp(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the day that not every year has is the last.
    let since_march_of_0 = days + 719_468;
    let (era, day) = (since_march_of_0 / 146_097, since_march_of_0 % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Encodes a text for a path or query; `/` stays where it is `kept`.
pub(super) fn encode(text: &str, kept: Option<char>) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_kept = |byte: u8| kept == Some(char::from(byte));
    text.bytes()
        .map(|byte| match plain(byte) || is_kept(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_369_353_600, "20130524T000000Z"),
            (1_709_164_800, "20240229T000000Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(timestamp(at(seconds)), expected);
        }
    }

    /// An example of Amazon's documentation.
    #[test]
    fn signatures_are_those_that_amazon_computes() {
        let request = Request { method: "GET", path: "/", query: "lifecycle=", headers: &[], body: b"" };
        let lines = request.sign(
            "examplebucket.s3.amazonaws.com",
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            at(1_369_353_600),
        );
        let signature = "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543\r\n";
        assert!(lines.ends_with(signature), "{lines}");
        assert!(lines.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date,"), "{lines}");
    }

    #[test]
    fn keys_are_encoded_part_by_part() {
        assert_eq!(encode("a b/ä+c%", Some('/')), "a%20b/%C3%A4%2Bc%25");
        assert_eq!(encode("a/b", None), "a%2Fb");
    }
}
