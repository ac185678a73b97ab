//! Needs: leases that are asked for together, on behalf of a test.

use testenv_api::Isolation;

use crate::builder::{Builder, Service};
use crate::error::{Error, Story};
use crate::fixture::Shared;
use crate::lease;
use crate::scope::Scope;

/// Leases that can be asked for together: a handle, [`Shared`], `()`, or a tuple of them.
///
/// Sealed. Needs are requests on the wire; write a [`Fixture`](crate::Fixture) for anything else.
pub trait Needs: Ask {}

/// The two halves of getting leases: asking, which waits for nothing, and receiving.
pub trait Ask: Sized {
    /// Requests on their way.
    type Asked;
    /// Sends the requests.
    fn ask(wish: &Wish<'_>) -> Result<Self::Asked, Error>;
    /// Waits for the answers. The scope holds the leases until the test has ended.
    fn receive(asked: Self::Asked, scope: &Scope) -> Result<Self, Error>;
}

/// A request on its way, opaque to other crates.
#[derive(Debug)]
pub struct Asked(pub(crate) lease::Asked);

/// What a test says about one argument.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    pub(crate) test: &'a str,
    pub(crate) role: Option<&'a str>,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) faults: bool,
}

impl<'a> Wish<'a> {
    /// The same test's wish for a role.
    pub fn of(&self, role: &'a str, isolation: Option<Isolation>, faults: bool) -> Self {
        let (isolation, faults) = (isolation.or(self.isolation), faults || self.faults);
        Self { role: Some(role), isolation, faults, ..self.clone() }
    }

    /// Refuses a role where there is more than one lease.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn refuse_role(&self) -> Result<(), Error> {
        match self.role {
            Some(role) => Err(Error::Misused(
                Story::new(format!("the role `{role}` is given to a fixture that is not one lease"))
                    .hint("remove #[testenv(role = …)] from the argument"),
            )),
            None => Ok(()),
        }
    }
}

/// [`Ask::ask`] for one handle.
pub(crate) fn ask_one<S: Service>(wish: &Wish<'_>) -> Result<Asked, Error> {
    let mut builder = Builder::<S>::new();
    builder.role = wish.role.map(str::to_owned);
    builder.isolation = wish.isolation;
    builder.faults = wish.faults;
    builder.test = Some(wish.test.to_owned());
    builder.send()
}

impl<S: Service + Ask<Asked = Asked>> Needs for Shared<S> {}

impl<S: Service + Ask<Asked = Asked>> Ask for Shared<S> {
    type Asked = Asked;

    fn ask(wish: &Wish<'_>) -> Result<Asked, Error> {
        ask_one::<S>(&Wish { isolation: Some(Isolation::Shared), ..wish.clone() })
    }

    fn receive(asked: Asked, scope: &Scope) -> Result<Self, Error> {
        S::receive(asked, scope).map(Shared)
    }
}

macro_rules! needs_tuple {
    ($($item:ident)*) => {
        impl<$($item: Needs),*> Needs for ($($item,)*) {}

        #[allow(non_snake_case, unused_variables, reason = "variables are named after types, and () has none")]
        impl<$($item: Needs),*> Ask for ($($item,)*) {
            type Asked = ($($item::Asked,)*);

            fn ask(wish: &Wish<'_>) -> Result<Self::Asked, Error> {
                wish.refuse_role()?;
                Ok(($($item::ask(wish)?,)*))
            }

            fn receive(asked: Self::Asked, scope: &Scope) -> Result<Self, Error> {
                let ($($item,)*) = asked;
                Ok(($($item::receive($item, scope)?,)*))
            }
        }
    };
}

needs_tuple!();
needs_tuple!(A);
needs_tuple!(A B);
needs_tuple!(A B C);
needs_tuple!(A B C D);
