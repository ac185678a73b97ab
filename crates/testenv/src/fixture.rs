//! Fixtures: what the arguments of a test may be.

use std::collections::BTreeMap;

use crate::error::BoxError;
use crate::needs::Needs;

/// Something that a test can have as an argument.
///
/// [`Postgres`](crate::Postgres) and [`Redis`](crate::Redis) are fixtures, and so is whatever you make of
/// them: name what yours needs, and set it up from that. The needs of all arguments of a test are asked for
/// at once, before any fixture is set up.
///
/// ```no_run,test_harness
/// use testenv::{BoxError, Fixture, Postgres, Redis};
///
/// struct App {
///     db: Postgres,
///     cache: Redis,
/// }
///
/// impl Fixture for App {
///     type Needs = (Postgres, Redis);
///
///     fn set_up((db, cache): (Postgres, Redis)) -> Result<Self, BoxError> {
///         Ok(App { db, cache })
///     }
/// }
///
/// #[testenv::test]
/// fn the_app_answers(app: App) {
///     assert!(app.db.url().starts_with("postgres://"));
///     assert!(app.cache.url().starts_with("redis://"));
/// }
/// ```
///
/// A fixture made of another fixture needs what that one needs:
/// `type Needs = (<App as Fixture>::Needs, Redis)`, and calls `App::set_up` in its own `set_up`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a fixture that this test can have as an argument",
    label = "not a fixture here",
    note = "implement `testenv::Fixture` for it, or `testenv::AsyncFixture` for tests that are `async fn`",
    note = "`Transaction`, and whatever else implements only `AsyncFixture`, needs the test to be an `async fn`"
)]
pub trait Fixture: Sized {
    /// The leases that it is made of: a handle, a tuple of them, or `()`.
    type Needs: Needs;

    /// Makes it of its leases.
    ///
    /// # Errors
    /// Whatever goes wrong; the test fails with it before its body begins.
    fn set_up(needs: Self::Needs) -> Result<Self, BoxError>;
}

/// Something that an async test can have as an argument: every [`Fixture`], and what is set up by waiting.
///
/// ```no_run,test_harness
/// use testenv::{AsyncFixture, BoxError, Postgres};
///
/// struct Server {
///     db: Postgres,
/// }
///
/// impl AsyncFixture for Server {
///     type Needs = Postgres;
///
///     async fn set_up(db: Postgres) -> Result<Self, BoxError> {
///         // Start the service here, on the runtime of the test.
///         Ok(Server { db })
///     }
/// }
///
/// #[testenv::test]
/// async fn the_server_answers(server: Server) {
///     assert!(server.db.url().starts_with("postgres://"));
/// }
/// ```
pub trait AsyncFixture: Sized {
    /// The leases that it is made of: a handle, a tuple of them, or `()`.
    type Needs: Needs;

    /// Makes it of its leases.
    ///
    /// # Errors
    /// Whatever goes wrong; the test fails with it before its body begins.
    fn set_up(needs: Self::Needs) -> impl Future<Output = Result<Self, BoxError>>;
}

impl<F: Fixture> AsyncFixture for F {
    type Needs = F::Needs;

    async fn set_up(needs: F::Needs) -> Result<Self, BoxError> {
        F::set_up(needs)
    }
}

/// A lease on the one migrated database that all shared leases of a role use.
///
/// For fixtures whose tests leave nothing behind; `Transaction` is made of it.
#[derive(Clone, Debug)]
pub struct Shared<S>(pub S);

/// Everything that an application needs, leased as a whole.
///
/// Derive it for a struct of handles: each field is a lease of the role in `testenv.toml` that has the field's
/// name, or that `#[testenv(role = "…")]` names. All are asked for at once, so the struct is there as soon as the
/// slowest of them. It is a [`Fixture`] and can be the [`Needs`] of one.
///
/// ```no_run,test_harness
/// use testenv::{Context, Postgres, Redis};
///
/// #[derive(Context)]
/// struct Backends {
///     database: Postgres,
///     #[testenv(role = "sessions")]
///     cache: Redis,
/// }
///
/// #[testenv::test]
/// fn the_program_starts(backends: Backends) -> std::io::Result<()> {
///     let mut server = std::process::Command::new("orders").envs(backends.env()).spawn()?;
///     // …
///     server.kill()
/// }
/// ```
pub trait Context {
    /// The environment variables of all its roles, as `testenv.toml` words them: what a program needs to find
    /// every one of them. Where two roles fill the same variable, the later field's value counts.
    fn env(&self) -> BTreeMap<String, String>;
}

impl<S: Context> Context for Shared<S> {
    fn env(&self) -> BTreeMap<String, String> {
        self.0.env()
    }
}
