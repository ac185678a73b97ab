//! Namespaces of S3: buckets, each with a login that reaches no other where the server has such.

use std::collections::BTreeMap;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use testenv_api::{Problem, ProblemKind};

use super::client::{Ask, Client, TIMEOUT, elements, refused, text, unescaped};
use super::{minio, versitygw};
use crate::drivers::Namespaces;
use crate::drivers::http::Answer;
use crate::service::{Endpoint, Spec};
use crate::snapshot::random_password;
use crate::{Result, external, inputs, io_problem};

/// Variables that hold the login of a server that others run.
const LOGIN: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
/// The version of servers that tell none: that of the protocol.
const PROTOCOL: &str = "2006.03.01";

/// Buckets as namespaces.
#[derive(Debug)]
pub(super) struct Buckets;

/// What a server is, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Product {
    Minio,
    Versitygw,
    Other,
}

impl Product {
    fn of(answer: &Answer) -> Self {
        match answer.server.as_str() {
            "MinIO" => Self::Minio,
            "VERSITYGW" => Self::Versitygw,
            _ => Self::Other,
        }
    }

    /// Makes a login that reaches the bucket and no other, and proves that it does reach it. Where the product
    /// has no such, it is the server's own.
    fn create_login(self, client: &mut Client, server: &Endpoint, bucket: &str) -> Result<Endpoint> {
        let (user, path) = (access_key(bucket), format!("/{bucket}"));
        let password = random_password().map_err(|error| io_problem("make up a password", &error))?;
        let endpoint = Endpoint { user, password, ..server.clone() };
        match self {
            Self::Minio => minio::create_login(client, server, bucket, &endpoint)?,
            Self::Versitygw => versitygw::create_login(client, bucket, &endpoint)?,
            Self::Other => return Ok(server.clone()),
        }
        open(&endpoint)?.expect(Ask { method: "HEAD", path: &path, ..Ask::default() })?;
        Ok(endpoint)
    }

    fn remove_login(self, client: &mut Client, bucket: &str) -> Result<()> {
        match self {
            Self::Minio => minio::remove_login(client, &access_key(bucket)),
            Self::Versitygw => versitygw::remove_login(client, &access_key(bucket)),
            Self::Other => Ok(()),
        }
    }
}

impl Namespaces for Buckets {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&["http"], 9000)
    }

    fn declared(&self, value: &str, environment: &BTreeMap<String, String>) -> Result<Endpoint, String> {
        let (schemes, port) = self.schemes();
        let endpoint = external::read_url(value, schemes, port)?;
        let [user, password] = LOGIN.map(|name| environment.get(name).filter(|value| !value.is_empty()));
        let missing = || format!("there is no login: set {} and {} too", LOGIN[0], LOGIN[1]);
        Ok(Endpoint {
            user: user.ok_or_else(missing)?.clone(),
            password: password.ok_or_else(missing)?.clone(),
            database: String::new(),
            ..endpoint
        })
    }

    fn ask_version(&self, server: &Endpoint) -> Result<String> {
        let mut client = open(server)?;
        let answer = client.expect(Ask { method: "GET", path: "/", ..Ask::default() })?;
        let version = match Product::of(&answer) {
            Product::Minio => minio::version(&mut client),
            Product::Versitygw | Product::Other => None,
        };
        Ok(version.unwrap_or_else(|| PROTOCOL.to_owned()))
    }

    fn create(&self, _: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint> {
        let (bucket, mut client) = (bucket(name), open(server)?);
        let product = Product::of(&create_bucket(&mut client, &bucket)?);
        let endpoint = match product.create_login(&mut client, server, &bucket) {
            Ok(endpoint) => endpoint,
            // Whoever declared it may not be allowed to make logins.
            Err(problem) if server.is_remote() => {
                tracing::debug!(%problem, "leases have the login that was declared");
                server.clone()
            }
            Err(problem) => return Err(problem),
        };
        Ok(Endpoint { database: bucket, ..endpoint })
    }

    fn remove(&self, _: &Spec, server: &Endpoint, name: &str) -> Result<()> {
        let (bucket, mut client) = (bucket(name), open(server)?);
        let path = format!("/{bucket}");
        let there = client.send(Ask { method: "HEAD", path: &path, ..Ask::default() })?;
        let product = Product::of(&there);
        product.remove_login(&mut client, &bucket)?;
        let ask = match product {
            _ if there.status == 404 => return Ok(()),
            Product::Minio => minio::remove_bucket(&path),
            Product::Versitygw | Product::Other => {
                empty(&mut client, &path)?;
                Ask { method: "DELETE", path: &path, ..Ask::default() }
            }
        };
        let answer = client.send(ask)?;
        if answer.is_success() || answer.status == 404 { Ok(()) } else { Err(refused(ask, &answer)) }
    }

    fn list(&self, _: &Spec, server: &Endpoint) -> Result<Vec<String>> {
        let answer = open(server)?.expect(Ask { method: "GET", path: "/", ..Ask::default() })?;
        let xml = String::from_utf8_lossy(&answer.body).into_owned();
        let names = elements(&xml, "Name").map(unescaped).filter(|name| name.starts_with("t-"));
        Ok(names.map(|bucket| bucket.replace('-', "_")).collect())
    }
}

fn open(server: &Endpoint) -> Result<Client> {
    Client::open(server, Instant::now() + TIMEOUT)
}

/// Names of buckets have no `_`, those of namespaces no `-`.
fn bucket(name: &str) -> String {
    name.replace('_', "-")
}

/// The access key of a bucket's login: the bucket's name, or its hash where that is longer than MinIO takes.
fn access_key(bucket: &str) -> String {
    const LIMIT: usize = 20;
    if bucket.len() <= LIMIT {
        return bucket.to_owned();
    }
    let digest = inputs::hex(&Sha256::digest(bucket));
    format!("t-{}", &digest[..LIMIT - 2])
}

/// Creates a bucket; one that is there already is as good.
pub(super) fn create_bucket(client: &mut Client, bucket: &str) -> Result<Answer> {
    let path = format!("/{bucket}");
    let ask = Ask { method: "PUT", path: &path, ..Ask::default() };
    let answer = client.send(ask)?;
    if answer.is_success() || text(&answer.text(4096), "Code").as_deref() == Some("BucketAlreadyOwnedByYou") {
        return Ok(answer);
    }
    Err(refused(ask, &answer))
}

/// Removes all versions of all objects in a bucket.
fn empty(client: &mut Client, path: &str) -> Result<()> {
    loop {
        let (ask, query) = (Ask { method: "GET", path, ..Ask::default() }, [("versions", "")]);
        let answer = client.expect(Ask { query: &query, ..ask })?;
        let xml = String::from_utf8_lossy(&answer.body).into_owned();
        let objects: Vec<_> =
            ["Version", "DeleteMarker"].into_iter().flat_map(|kind| elements(&xml, kind)).collect();
        if objects.is_empty() {
            return Ok(());
        }
        let mut removed = 0;
        for object in objects {
            let Some(key) = text(object, "Key") else { continue };
            let version =
                text(object, "VersionId").filter(|version| !matches!(version.as_str(), "" | "null"));
            let query: Vec<_> = version.iter().map(|version| ("versionId", version.as_str())).collect();
            let path = format!("{path}/{key}");
            client.expect(Ask { method: "DELETE", path: &path, query: &query, ..Ask::default() })?;
            removed += 1;
        }
        if removed == 0 {
            return Err(Problem::new(ProblemKind::PrepareFailed, format!("{path} cannot be emptied"))
                .detail("the server lists objects without keys"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_server_needs_a_login() {
        let environment = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let all = environment(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")]);
        let endpoint = Buckets.declared("http://minio:9001/ignored", &all).unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("minio", 9001));
        assert_eq!((endpoint.user.as_str(), endpoint.password.as_str()), ("a", "s"));
        assert_eq!(endpoint.database, "");
        let said = Buckets.declared("http://minio", &environment(&[("AWS_ACCESS_KEY_ID", "a")])).unwrap_err();
        assert!(said.contains("AWS_SECRET_ACCESS_KEY"), "{said}");
        assert!(Buckets.declared("https://s3.amazonaws.com", &all).unwrap_err().contains("its scheme"));
    }

    #[test]
    fn buckets_have_names_that_s3_allows() {
        assert_eq!(bucket("t_store_12_3"), "t-store-12-3");
        assert_eq!(access_key("t-store-12-3"), "t-store-12-3");
        let long = access_key("t-7b97ea-1795277390-39cc-3");
        assert!(long.len() == 20 && long != access_key("t-7b97ea-1795277390-39cc-4"), "{long}");
    }
}
