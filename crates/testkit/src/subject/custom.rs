//! A company's own server, described in `testenv.toml`.

use testenv_api::Lease;

use super::{Subject, same};
use crate::company::{COMPANY, http};

pub(super) struct Custom;

impl Subject for Custom {
    fn service(&self) -> &'static str {
        "custom"
    }

    fn config(&self) -> &'static str {
        r#"
url_env = "IT_URL"
command = "python3 company.py --port {port} --admin-port {port.admin} --config {data}/company.json"
ports = ["http", "admin"]
environment = { SERVER_USER = "{user}", SERVER_PASSWORD = "{password}" }
files = { "company.json" = '{ "state": "{data}/state.json" }' }
ready = { http = "/health", port = "admin" }
url = "http://{user}:{password}@{host}:{port}/{database}"
seed = { command = "sh seed.sh {host}:{port}/{database}/values {user}:{password}", inputs = ["seed.sh", "values"] }

[services.it.namespace]
create = "curl -fsS -X PUT -d {password} -H 'Authorization: Bearer '{server.user}:{server.password} {host}:{port}/{name}"
remove = "curl -fsS -X DELETE -H 'Authorization: Bearer '{server.user}:{server.password} {host}:{port}/{name}"
list = "curl -fsS -H 'Authorization: Bearer '{server.user}:{server.password} {host}:{port}/"
user = "{name}"
password = "{random}"
"#
    }

    fn provider(&self) -> &'static str {
        self.config()
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("company.py", COMPANY),
            (
                "seed.sh",
                "set -e\nfor value in $(cat values); do\n\
                 curl -fsS -o /dev/null -d \"$value\" -H \"Authorization: Bearer $2\" \"$1\"\ndone\n",
            ),
            ("values", "one two three\n"),
        ]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        ("seed.sh", "echo no such step >&2\nexit 3\n", "no such step")
    }

    fn is_here(&self) -> bool {
        crate::have("python3") && crate::have("curl")
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        same(&values(lease)?, &["one", "two", "three"].map(String::from).into())
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        let path = format!("/{}/values", lease.database);
        same(&http(lease, "POST", &path, value)?.0, &200)
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        let mut values = values(lease)?;
        values.retain(|value| value != "one" && value != "two" && value != "three");
        Ok(values)
    }
}

fn values(lease: &Lease) -> Result<Vec<String>, String> {
    match http(lease, "GET", &format!("/{}/values", lease.database), "")? {
        (200, values) => Ok(values.lines().map(str::to_owned).collect()),
        other => Err(format!("{other:?}")),
    }
}
