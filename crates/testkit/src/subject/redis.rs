//! Redis and Valkey.

use redis::{Commands as _, Connection};
use testenv_api::Lease;

use super::{Subject, same, text};

pub(super) struct Redis;

fn connect(lease: &Lease) -> Result<Connection, String> {
    redis::Client::open(lease.url.as_str()).and_then(|client| client.get_connection()).map_err(text)
}

impl Subject for Redis {
    fn service(&self) -> &'static str {
        "redis"
    }

    fn config(&self) -> &'static str {
        "seed = \"seed.redis\"\n"
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[("seed.redis", "# Three of them.\nRPUSH seeded one two three\n")]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        ("seed.redis", "PING\nNO SUCH COMMAND\n", "seed.redis:2")
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        let mut connection = connect(lease)?;
        let expected = ["one", "two", "three"].map(String::from).into();
        same(&connection.lrange::<_, Vec<String>>("seeded", 0, -1).map_err(text)?, &expected)?;
        same(&connection.keys::<_, Vec<String>>("*").map_err(text)?, &vec!["seeded".to_owned()])
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        connect(lease)?.rpush("written", value).map_err(text)
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        connect(lease)?.lrange("written", 0, -1).map_err(text)
    }
}
