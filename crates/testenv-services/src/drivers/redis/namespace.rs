//! Numbered databases of a shared Redis server.
//!
//! Who has which is noted in database 0, in a hash, so that brokers of several machines can share a server. A
//! database that holds anything and is nobody's is somebody's after all, and left alone.

use testenv_api::{Problem, ProblemKind};

use super::Redis;
use super::client::{Client, Reply};
use crate::Result;
use crate::drivers::Namespaces;
use crate::service::{Endpoint, Spec};

/// The hash in database 0: number → name of the namespace that has it.
const TAKEN: &str = "testenv:databases";
/// How many databases a server has that does not say.
const USUAL_DATABASES: u32 = 16;

impl Namespaces for Redis {
    fn schemes(&self) -> (&'static [&'static str], u16) {
        (&["redis"], 6379)
    }

    fn ask_version(&self, server: &Endpoint) -> Result<String> {
        let Reply::Text(info) = self.client(server)?.call(&["INFO", "server"])? else {
            return Ok(String::new());
        };
        let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line("valkey_version").or_else(|| line("redis_version")).unwrap_or_default().to_owned())
    }

    fn create(&self, _spec: &Spec, server: &Endpoint, name: &str) -> Result<Endpoint> {
        let mut client = self.client(server)?;
        let databases = databases(&mut client);
        let numbers = client.call(&["HKEYS", TAKEN])?.into_texts();
        for number in (1..databases).map(|number| number.to_string()) {
            if numbers.contains(&number)
                || client.call(&["HSETNX", TAKEN, &number, name])? != Reply::Number(1)
            {
                continue;
            }
            client.call(&["SELECT", &number])?;
            if client.call(&["DBSIZE"])? == Reply::Number(0) {
                return Ok(Endpoint { database: number, ..server.clone() });
            }
            client.call(&["SELECT", "0"])?;
            client.call(&["HDEL", TAKEN, &number])?;
        }
        Err(Problem::new(ProblemKind::Resources, "the Redis server has no database left")
            .detail(format!("it has {databases}, and all but the first are in use or hold keys"))
            .hint("raise `databases` in its configuration, or run fewer tests at once"))
    }

    fn remove(&self, _spec: &Spec, server: &Endpoint, name: &str) -> Result<()> {
        let mut client = self.client(server)?;
        let taken = client.call(&["HGETALL", TAKEN])?.into_texts();
        for number in taken.chunks_exact(2).filter(|pair| pair[1] == name).map(|pair| pair[0].as_str()) {
            client.call(&["SELECT", number])?;
            client.call(&["FLUSHDB"])?;
            client.call(&["SELECT", "0"])?;
            client.call(&["HDEL", TAKEN, number])?;
        }
        Ok(())
    }

    fn list(&self, _spec: &Spec, server: &Endpoint) -> Result<Vec<String>> {
        let mut names = self.client(server)?.call(&["HVALS", TAKEN])?.into_texts();
        names.retain(|name| name.starts_with("t_"));
        Ok(names)
    }
}

/// How many databases the server has; those that hide their configuration mostly have the usual number.
fn databases(client: &mut Client) -> u32 {
    let said = client.call(&["CONFIG", "GET", "databases"]).map(Reply::into_texts).unwrap_or_default();
    said.get(1).and_then(|number| number.parse().ok()).unwrap_or(USUAL_DATABASES)
}
