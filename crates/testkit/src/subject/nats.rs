//! NATS with JetStream.

use testenv_api::Lease;

use super::{Subject, same};

pub(super) struct Nats;

impl Subject for Nats {
    fn service(&self) -> &'static str {
        "nats"
    }

    fn config(&self) -> &'static str {
        "migrations = \"streams\"\nseed = \"seed.json\"\n"
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("streams/1_seeded.json", r#"{ "name": "SEEDED", "subjects": ["seeded.>"], "storage": "file" }"#),
            ("streams/2_written.json", r#"{ "bucket": "written" }"#),
            (
                "seed.json",
                r#"[{ "subject": "seeded.a", "data": "one" }, { "subject": "seeded.a", "data": "two" },
                    { "subject": "seeded.b", "data": "three" }]"#,
            ),
        ]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        ("seed.json", r#"[{ "subject": "nowhere", "data": "one" }]"#, "seed.json: NATS refused the message")
    }

    fn is_here(&self) -> bool {
        crate::have("nats-server")
    }

    fn can_be_external(&self) -> bool {
        false
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        let mut nats = crate::Nats::connect(lease)?;
        same(&nats.streams()?, &["KV_written", "SEEDED"].map(String::from).into())?;
        let info = nats.ask("$JS.API.STREAM.INFO.SEEDED", "")?;
        same(&info["state"]["messages"].as_u64(), &Some(3))?;
        same(&self.read(lease)?, &Vec::new())
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        let key = value.replace(' ', "_");
        crate::Nats::connect(lease)?.ask(&format!("$KV.written.{key}"), value).map(drop)
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        let filter = r#"{ "subjects_filter": ">" }"#;
        let info = crate::Nats::connect(lease)?.ask("$JS.API.STREAM.INFO.KV_written", filter)?;
        let subjects = info["state"]["subjects"].as_object().into_iter().flatten();
        let mut keys: Vec<_> = subjects
            .map(|(subject, _)| subject.trim_start_matches("$KV.written.").replace('_', " "))
            .collect();
        keys.sort();
        Ok(keys)
    }
}
