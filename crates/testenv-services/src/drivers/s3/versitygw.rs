//! The Versity S3 Gateway, over directories: objects, what is said about them, users.

use std::path::Path;

use super::client::{Ask, Client};
use crate::Result;
use crate::drivers::Command;
use crate::service::{Endpoint, Spec};

/// The directory of the objects, in the server's data; of what is said about them; of the users.
const OBJECTS: &str = "objects";
const METADATA: &str = "metadata";
const USERS: &str = "users";
/// All of them.
pub(super) const DIRS: [&str; 3] = [OBJECTS, METADATA, USERS];

pub(super) fn command(spec: &Spec, data: &Path, endpoint: &Endpoint) -> Command {
    let address = format!("{}:{}", endpoint.host, endpoint.port);
    let args = vec![
        "--port".into(),
        address.into(),
        "--iam-dir".into(),
        data.join(USERS).into(),
        "--keep-alive".into(),
        "posix".into(),
        "--sidecar".into(),
        data.join(METADATA).into(),
        data.join(OBJECTS).into(),
    ];
    let login = [("ROOT_ACCESS_KEY_ID", &endpoint.user), ("ROOT_SECRET_ACCESS_KEY", &endpoint.password)];
    let env = login.map(|(name, value)| (name.into(), value.into())).into();
    Command { program: spec.build.program.clone(), args, env }
}

/// Makes a user, and gives it the bucket, which is all that it then reaches.
pub(super) fn create_login(client: &mut Client, bucket: &str, login: &Endpoint) -> Result<()> {
    let Endpoint { user, password, .. } = login;
    let account = format!(
        "<Account><Access>{user}</Access><Secret>{password}</Secret><Role>user</Role>\
         <UserID>0</UserID><GroupID>0</GroupID></Account>"
    );
    let path = "/create-user";
    client.expect(Ask { method: "PATCH", path, body: account.as_bytes(), ..Ask::default() })?;
    let (path, query) = ("/change-bucket-owner", [("bucket", bucket), ("owner", user.as_str())]);
    client.expect(Ask { method: "PATCH", path, query: &query, ..Ask::default() }).map(drop)
}

pub(super) fn remove_login(client: &mut Client, access_key: &str) -> Result<()> {
    let (path, query) = ("/delete-user", [("access", access_key)]);
    client.send(Ask { method: "PATCH", path, query: &query, ..Ask::default() }).map(drop)
}
