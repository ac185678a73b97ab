//! Fixtures: what the arguments of a test may be.

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
