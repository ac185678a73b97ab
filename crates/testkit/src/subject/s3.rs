//! Stores of objects: MinIO and the Versity S3 Gateway.

use std::path::PathBuf;
use std::sync::LazyLock;

use testenv_api::Lease;

use super::{Subject, same};
use crate::go_dir;

/// A product, by the name that it has as a kind of service and as a program.
pub(super) struct S3(pub(super) &'static str);

impl Subject for S3 {
    fn service(&self) -> &'static str {
        self.0
    }

    fn config(&self) -> &'static str {
        "migrations = \"assets\"\nseed = [\"more\", \"seed.txt\"]\n"
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("assets/seeded/one.txt", "one"),
            ("assets/seeded/two & \u{fc}.txt", "two"),
            ("more/seeded/empty", ""),
            ("seed.txt", "three"),
        ]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        // Nearly every file can be an object.
        static LONG: LazyLock<String> = LazyLock::new(|| format!("more/{}x", "long/".repeat(250)));
        let path = match self.0 {
            "minio" => LONG.as_str(),
            _ => "more/seeded/one.txt/below",
        };
        (path, "x", "was not stored")
    }

    fn lacking(&self) -> Option<&'static str> {
        go_dir(self.0).is_none().then_some("there is no such program")
    }

    fn bin_dir(&self) -> Option<PathBuf> {
        go_dir(self.0)
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        let s3 = crate::S3::of(lease)?;
        let keys = ["seed.txt", "seeded/empty", "seeded/one.txt", "seeded/two & \u{fc}.txt"];
        same(&s3.keys()?, &keys.map(String::from).into())?;
        for (key, content) in keys.into_iter().zip(["three", "", "one", "two"]) {
            same(&s3.get(key)?, &content.as_bytes().to_vec())?;
        }
        Ok(())
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        crate::S3::of(lease)?.put(&format!("written/{value}"), value.as_bytes())
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        let keys = crate::S3::of(lease)?.keys()?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix("written/")).map(str::to_owned).collect())
    }
}
