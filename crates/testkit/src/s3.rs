//! A client of S3 for tests.

use std::time::Duration;

use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use testenv_api::Lease;
use ureq::Agent;

/// How long a signature is good for, and how long a request may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A bucket, with a login.
#[derive(Debug)]
pub struct S3 {
    bucket: Bucket,
    credentials: Credentials,
    agent: Agent,
}

impl S3 {
    /// The bucket of a lease, with its login.
    ///
    /// # Errors
    /// When the lease's URL is none.
    pub fn of(lease: &Lease) -> Result<Self, String> {
        Self::bucket_of(lease, &lease.database)
    }

    /// Another bucket, with the same login.
    ///
    /// # Errors
    /// When the lease's URL is none.
    pub fn bucket_of(lease: &Lease, bucket: &str) -> Result<Self, String> {
        let url = lease.url.parse().map_err(|error| format!("{error}: {}", lease.url))?;
        let bucket = Bucket::new(url, UrlStyle::Path, bucket.to_owned(), "us-east-1".to_owned());
        let settings = Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT));
        Ok(Self {
            bucket: bucket.map_err(|error| error.to_string())?,
            credentials: Credentials::new(lease.user.clone(), lease.password.clone()),
            agent: settings.build().into(),
        })
    }

    /// The same with another secret.
    #[must_use]
    pub fn with_secret(self, secret: &str) -> Self {
        let credentials = Credentials::new(self.credentials.key().to_owned(), secret.to_owned());
        Self { credentials, ..self }
    }

    /// Stores an object.
    ///
    /// # Errors
    /// What the server says.
    pub fn put(&self, key: &str, content: &[u8]) -> Result<(), String> {
        let url = self.bucket.put_object(Some(&self.credentials), key).sign(LIMIT);
        done(self.agent.put(url.as_str()).send(content)).map(drop)
    }

    /// What an object holds.
    ///
    /// # Errors
    /// What the server says.
    pub fn get(&self, key: &str) -> Result<Vec<u8>, String> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(LIMIT);
        done(self.agent.get(url.as_str()).call())
    }

    /// Removes an object.
    ///
    /// # Errors
    /// What the server says.
    pub fn delete(&self, key: &str) -> Result<(), String> {
        let url = self.bucket.delete_object(Some(&self.credentials), key).sign(LIMIT);
        done(self.agent.delete(url.as_str()).call()).map(drop)
    }

    /// Keys of all objects, sorted.
    ///
    /// # Errors
    /// What the server says.
    pub fn keys(&self) -> Result<Vec<String>, String> {
        let url = self.bucket.list_objects_v2(Some(&self.credentials)).sign(LIMIT);
        let answer = done(self.agent.get(url.as_str()).call())?;
        let answer = String::from_utf8_lossy(&answer);
        let listed = ListObjectsV2::parse_response(&answer).map_err(|error| format!("{error}: {answer}"))?;
        let mut keys: Vec<_> = listed.contents.into_iter().map(|object| object.key).collect();
        keys.sort();
        Ok(keys)
    }

    /// Creates the bucket.
    ///
    /// # Errors
    /// What the server says.
    pub fn create(&self) -> Result<(), String> {
        let url = self.bucket.create_bucket(&self.credentials).sign(LIMIT);
        done(self.agent.put(url.as_str()).send_empty()).map(drop)
    }

    /// Removes the bucket, which has to be empty.
    ///
    /// # Errors
    /// What the server says.
    pub fn remove(&self) -> Result<(), String> {
        let url = self.bucket.delete_bucket(&self.credentials).sign(LIMIT);
        done(self.agent.delete(url.as_str()).call()).map(drop)
    }
}

/// The body of an answer that is no refusal.
fn done(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Vec<u8>, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let body = answer.body_mut().read_to_vec().map_err(|error| error.to_string())?;
    match answer.status().is_success() {
        true => Ok(body),
        false => Err(format!("{}: {}", answer.status(), String::from_utf8_lossy(&body))),
    }
}
