//! MinIO: one drive, no console, no scanning.

use std::path::Path;

use serde_json::json;
use testenv_api::{Problem, ProblemKind};

use super::client::{Ask, Client};
use super::zip;
use crate::Result;
use crate::drivers::Command;
use crate::service::{Endpoint, Spec};

/// The directory of the drive, in the server's data.
pub(super) const DRIVE: &str = "drive";
/// Environment of a server for tests. `CI` lets the drive be on the file system of `/`.
const ENV: [(&str, &str); 8] = [
    ("MINIO_BROWSER", "off"),
    ("MINIO_UPDATE", "off"),
    ("MINIO_CI_CD", "on"),
    ("_MINIO_SCANNER", "off"),
    ("_MINIO_AUTO_DRIVE_HEALING", "off"),
    ("_MINIO_DRIVE_ACTIVE_MONITORING", "off"),
    // Half of the work of starting would be collecting garbage.
    ("GOGC", "400"),
    ("HOME", "/nonexistent"),
];

pub(super) fn command(spec: &Spec, data: &Path, endpoint: &Endpoint) -> Command {
    let address = format!("{}:{}", endpoint.host, endpoint.port);
    let login = [("MINIO_ROOT_USER", &endpoint.user), ("MINIO_ROOT_PASSWORD", &endpoint.password)];
    let env = ENV.map(|(name, value)| (name.into(), value.into())).into_iter();
    Command {
        program: spec.build.program.clone(),
        args: vec!["server".into(), "--address".into(), address.into(), data.join(DRIVE).into()],
        env: env.chain(login.map(|(name, value)| (name.into(), value.into()))).collect(),
    }
}

/// Makes a login that reaches one bucket only: an account of the server's own user. MinIO does not say when it
/// did not.
pub(super) fn create_login(
    client: &mut Client,
    server: &Endpoint,
    bucket: &str,
    login: &Endpoint,
) -> Result<()> {
    let resources = [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")];
    let account = json!({
        "parent": server.user, "accessKey": login.user, "secretKey": login.password, "status": "on", "claims": {},
        "sessionPolicy": {
            "Version": "2012-10-17",
            "Statement": [{ "Effect": "Allow", "Action": ["s3:*"], "Resource": resources }],
        },
    });
    // Of all ways to add an account, this is the one whose body is not encrypted with the server's password.
    let accounts = json!({ login.user.as_str(): account }).to_string();
    let archive = zip::archive("iam-assets/svcaccts.json", accounts.as_bytes()).ok_or_else(|| {
        Problem::new(ProblemKind::Internal, "a login of MinIO does not fit into an archive")
    })?;
    let path = "/minio/admin/v3/import-iam";
    client.expect(Ask { method: "PUT", path, body: &archive, ..Ask::default() }).map(drop)
}

pub(super) fn remove_login(client: &mut Client, access_key: &str) -> Result<()> {
    let (path, query) = ("/minio/admin/v3/delete-service-account", [("accessKey", access_key)]);
    client.send(Ask { method: "DELETE", path, query: &query, ..Ask::default() }).map(drop)
}

/// Removes a bucket with all that is in it, in one step.
pub(super) fn remove_bucket<'a>(path: &'a str) -> Ask<'a> {
    Ask { method: "DELETE", path, headers: &[("x-minio-force-delete", "true")], ..Ask::default() }
}

/// The version that a server says it has, if this login may know it.
pub(super) fn version(client: &mut Client) -> Option<String> {
    let path = "/minio/admin/v3/info";
    let answer = client.send(Ask { method: "GET", path, ..Ask::default() }).ok()?;
    let info: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    release(info["servers"][0]["version"].as_str()?)
}

/// `RELEASE.2025-09-07T16-13-09Z` and `2025-09-07T16:13:09Z` → `2025.09.07`.
pub(super) fn release(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.trim_start_matches("RELEASE."));
    let mut dates = words.filter_map(|word| word.split_once('T')).map(|(date, _)| date);
    let is_date =
        |date: &&str| date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    dates.find(is_date).map(|date| date.replace('-', "."))
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn releases_are_dates() {
        let said =
            "minio version RELEASE.2025-09-07T16-13-09Z (commit-id=07c3a429)\nRuntime: go1.24.6 linux/amd64";
        assert_eq!(release(said).unwrap(), "2025.09.07");
        assert_eq!(release("2026-02-12T20:18:48Z").unwrap(), "2026.02.12");
        assert_eq!(release("minio version DEVELOPMENT.GOGET (commit-id=DEVELOPMENT.GOGET)"), None);
    }
}
