use std::time::Duration;

use testenv_api::Lease;
use testkit::{S3, TestWorkspace, User, go_dir, needs_root, skip, until};

use crate::{TESTENV, assert_says};

/// Products that serve it.
const PRODUCTS: [&str; 2] = ["minio", "versitygw"];

/// Those that are here.
fn products() -> Vec<&'static str> {
    let (here, missing): (Vec<_>, Vec<_>) =
        PRODUCTS.into_iter().partition(|program| go_dir(program).is_some());
    for program in missing {
        skip(&format!("there is no {program}"));
    }
    here
}

/// The first lines of a role of this product.
fn role(product: &str) -> String {
    let dir = go_dir(product).unwrap();
    format!("[services.store]\nservice = \"{product}\"\nbin_dir = {dir:?}\n")
}

/// Gives a workspace a role of this product with two objects, one of them large.
fn seeded(workspace: TestWorkspace, product: &str, more: &str) -> TestWorkspace {
    workspace
        .config(&format!("{}seed = \"objects\"\n{more}", role(product)))
        .file("objects/small.txt", "small")
        .file("objects/dir/large.txt", &"x".repeat(2 << 20))
}

fn workspace(product: &str, more: &str) -> TestWorkspace {
    seeded(TestWorkspace::new(TESTENV), product, more)
}

fn bucket(lease: &Lease) -> S3 {
    S3::of(lease).unwrap()
}

#[track_caller]
fn assert_pristine(lease: &Lease) {
    let bucket = bucket(lease);
    assert_eq!(bucket.keys().unwrap(), ["dir/large.txt", "small.txt"]);
    assert_eq!(bucket.get("small.txt").unwrap(), b"small");
    assert_eq!(bucket.get("dir/large.txt").unwrap().len(), 2 << 20);
}

/// Everything that a test may do to a bucket, down to removing it and making it again.
#[track_caller]
fn spoil(lease: &Lease) {
    let bucket = bucket(lease);
    bucket.put("dir/large.txt", &vec![b'y'; 3 << 20]).unwrap();
    bucket.put("small.txt", b"other").unwrap();
    bucket.put("more/of it", b"more").unwrap();
    assert_eq!(bucket.get("small.txt").unwrap(), b"other");
    for key in bucket.keys().unwrap() {
        bucket.delete(&key).unwrap();
    }
    assert!(bucket.get("dir/large.txt").unwrap_err().contains("NoSuchKey"));
    bucket.remove().unwrap();
    assert!(bucket.keys().unwrap_err().contains("NoSuchBucket"));
}

fn servers_are_apart(workspace: TestWorkspace) {
    let (one, two) = (workspace.lease("store"), workspace.lease("store"));
    assert_ne!(one.lease().port, two.lease().port);
    assert_pristine(one.lease());
    spoil(one.lease());
    let another = S3::bucket_of(one.lease(), "another").unwrap();
    another.create().unwrap();
    another.put("key", b"content").unwrap();
    assert_pristine(two.lease());
    assert!(S3::bucket_of(two.lease(), "another").unwrap().keys().unwrap_err().contains("NoSuchBucket"));
    drop((one, two));
    workspace.end();
}

#[test]
fn a_lease_is_a_server_with_its_objects_whatever_becomes_of_the_one_before() {
    for product in products() {
        let workspace = workspace(product, "");
        let held = workspace.lease("store");
        let (lease, env) = (held.lease(), &held.lease().env);
        assert_eq!(
            (env["AWS_ENDPOINT_URL"].as_str(), env["S3_BUCKET"].as_str()),
            (lease.url.as_str(), "app")
        );
        assert_eq!(
            (&env["AWS_ACCESS_KEY_ID"], &env["AWS_SECRET_ACCESS_KEY"]),
            (&lease.user, &lease.password)
        );
        let refused = bucket(lease).with_secret("not-the-password").keys().unwrap_err();
        assert!(refused.contains("SignatureDoesNotMatch"), "{refused}");
        drop(held);
        servers_are_apart(workspace);
    }
}

/// What comes from the snapshot is in directories that such an overlay does not let a server rename.
#[test]
fn an_ordinary_user_s_servers_can_remove_what_the_seed_brought() {
    if !needs_root("to become another user") {
        return;
    }
    for product in products() {
        servers_are_apart(seeded(TestWorkspace::of_user(TESTENV, User::Nobody), product, ""));
    }
}

#[test]
fn servers_of_every_kind_of_fork_can_remove_what_the_seed_brought() {
    for product in products() {
        for cache in ["fork = \"copy\"", "storage = \"disk\""] {
            servers_are_apart(workspace(product, &format!("[cache]\n{cache}\n")));
        }
    }
}

#[test]
fn namespaces_are_buckets_that_no_other_login_reaches() {
    for product in products() {
        let workspace = workspace(product, "isolation = \"namespace\"\n");
        let (one, two) = (workspace.lease("store"), workspace.lease("store"));
        assert_eq!(one.lease().port, two.lease().port);
        assert!(one.lease().database.starts_with("t-store-") && one.lease().user != two.lease().user);
        assert_pristine(one.lease());
        let foreign = S3::bucket_of(one.lease(), &two.lease().database).unwrap();
        for refused in [
            foreign.keys().unwrap_err(),
            foreign.get("small.txt").unwrap_err(),
            foreign.put("small.txt", b"mine").unwrap_err(),
            foreign.delete("small.txt").unwrap_err(),
            foreign.remove().unwrap_err(),
        ] {
            assert!(refused.contains("403") && refused.contains("AccessDenied"), "{product}: {refused}");
        }
        bucket(one.lease()).put("more", b"more").unwrap();
        bucket(one.lease()).delete("dir/large.txt").unwrap();
        assert_pristine(two.lease());
        let gone = one.lease().clone();
        drop(one);
        until(Duration::from_secs(10), || match bucket(&gone).keys() {
            Err(refused) if refused.contains("InvalidAccessKeyId") => Ok(()),
            other => Err(format!("its login still works: {other:?}")),
        });
        // A test may remove its bucket itself.
        let next = workspace.lease("store");
        spoil(next.lease());
        drop((next, two));
        assert_pristine(workspace.lease("store").lease());
        workspace.end();
    }
}

#[test]
fn many_buckets_come_and_go_at_the_same_time() {
    for product in products() {
        let workspace = workspace(product, "isolation = \"namespace\"\n[pool]\nwarm = 0\n");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let held = workspace.lease("store");
                        assert_pristine(held.lease());
                        bucket(held.lease()).put("dirt", b"dirt").unwrap();
                    }
                });
            }
        });
        workspace.end();
    }
}

#[test]
fn several_buckets_are_there_and_seeds_are_for_the_first() {
    for product in products() {
        let workspace = workspace(product, "bucket = [\"uploads\", \"exports\"]\nuser = \"me.and.you\"\n");
        let held = workspace.lease("store");
        assert_eq!((held.lease().database.as_str(), held.lease().user.as_str()), ("uploads", "me.and.you"));
        assert_pristine(held.lease());
        assert_eq!(S3::bucket_of(held.lease(), "exports").unwrap().keys().unwrap(), [""; 0]);
        drop(held);
        workspace.end();
    }
}

#[test]
fn what_cannot_be_is_told() {
    let refusal = |config: &str, environment: &[(&str, &str)]| {
        let mut workspace =
            TestWorkspace::new(TESTENV).config(&format!("[services.store]\nservice = \"s3\"\n{config}\n"));
        for (name, value) in environment {
            workspace = workspace.env(name, value);
        }
        let message = workspace.refusal("store");
        workspace.end();
        message
    };
    let message = refusal("bin_dir = \"nothing-here\"", &[]);
    assert_says(
        &message,
        &["no MinIO or versitygw on this machine", "go install github.com/minio/minio@latest"],
    );
    let login = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let external = "runtime = \"external\"";
    let message = refusal(external, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), login[0]]);
    assert_says(&message, &["AWS_ENDPOINT_URL does not say", "there is no login", "AWS_SECRET_ACCESS_KEY"]);
    let message = refusal(external, &[("AWS_ENDPOINT_URL", "https://127.0.0.1:1"), login[0], login[1]]);
    assert_says(&message, &["its scheme is \"https\""]);
    let message = refusal(external, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), login[0], login[1]]);
    assert_says(&message, &["cannot be used", "127.0.0.1:1", "refused"]);
    let message = refusal("settings = { MINIO_CONSOLE_ADDRESS = \":9001\" }", &[]);
    assert_says(&message, &["services.store.settings.MINIO_CONSOLE_ADDRESS cannot be set"]);
}

#[test]
fn a_setting_that_the_server_refuses_is_told_with_its_log() {
    if go_dir("minio").is_none() {
        return skip("there is no minio");
    }
    let workspace = workspace("minio", "settings = { MINIO_DOMAIN = \"a..b\" }\n");
    let message = workspace.refusal("store");
    assert_says(&message, &["minio", "did not start", "a..b"]);
    workspace.end();
}
