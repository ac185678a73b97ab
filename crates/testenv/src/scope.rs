//! One test, as the macro runs it: it holds the leases, watches how the body ends, and tells.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{ExitCode, Termination};
use std::sync::Arc;

use testenv_api::Isolation;

use crate::error::Error;
use crate::fixture::{AsyncFixture, Fixture};
use crate::lease::Held;
use crate::needs::{Ask, Wish};
use crate::story;

/// Holds every lease of a test from before its body begins until it is known how it ended.
#[derive(Debug)]
pub struct Scope {
    test: &'static str,
    isolation: Option<Isolation>,
    leases: RefCell<Vec<Arc<Held>>>,
}

/// What one argument has asked for.
pub struct Pending<F, N: Ask>(N::Asked, PhantomData<F>);

impl<F, N: Ask> std::fmt::Debug for Pending<F, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

impl Scope {
    /// A scope for the test of that name; `isolation` holds for arguments that have none of their own.
    pub fn new(test: &'static str, isolation: Option<Isolation>) -> Self {
        Self { test, isolation, leases: RefCell::default() }
    }

    /// Asks for an argument of a sync test, without waiting.
    pub fn ask<F: Fixture>(
        &self,
        role: Option<&str>,
        isolation: Option<Isolation>,
        faults: bool,
    ) -> Result<Pending<F, F::Needs>, Error> {
        F::Needs::ask(&self.wish(role, isolation, faults)).map(|asked| Pending(asked, PhantomData))
    }

    /// Waits for an argument of a sync test.
    pub fn receive<F: Fixture>(&self, asked: Pending<F, F::Needs>) -> Result<F, Error> {
        let needs = F::Needs::receive(asked.0, self)?;
        F::set_up(needs).map_err(|error| Error::fixture(std::any::type_name::<F>(), error))
    }

    /// Asks for an argument of an async test, without waiting.
    pub fn ask_async<F: AsyncFixture>(
        &self,
        role: Option<&str>,
        isolation: Option<Isolation>,
        faults: bool,
    ) -> Result<Pending<F, F::Needs>, Error> {
        F::Needs::ask(&self.wish(role, isolation, faults)).map(|asked| Pending(asked, PhantomData))
    }

    /// Waits for an argument of an async test.
    pub async fn receive_async<F: AsyncFixture>(&self, asked: Pending<F, F::Needs>) -> Result<F, Error> {
        let needs = F::Needs::receive(asked.0, self)?;
        F::set_up(needs).await.map_err(|error| Error::fixture(std::any::type_name::<F>(), error))
    }

    /// Runs a test to its end.
    pub fn run<T: Termination>(&self, test: impl FnOnce() -> Result<T, Error>) -> ExitCode {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(Ok(value)) => {
                // Prints the error of an `Err`, so that the story comes below it.
                let code = value.report();
                if code == ExitCode::SUCCESS {
                    self.passed()
                } else {
                    self.failed()
                }
                code
            }
            Ok(Err(error)) => {
                story::print_error(&error);
                self.failed();
                ExitCode::FAILURE
            }
            Err(panic) => {
                self.failed();
                resume_unwind(panic)
            }
        }
    }

    /// Runs a test that is marked `#[should_panic]` to its end.
    pub fn run_should_panic<T>(&self, test: impl FnOnce() -> Result<T, Error>) {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(Ok(_)) => self.failed(),
            // Returning is how such a test fails: a panic here would count as the one that is wanted.
            Ok(Err(error)) => {
                story::print_error(&error);
                self.failed();
            }
            Err(panic) => {
                self.passed();
                resume_unwind(panic)
            }
        }
    }

    /// Takes a lease into the scope.
    pub(crate) fn hold(&self, mut held: Held) -> Arc<Held> {
        held.reports_itself = false;
        let held = Arc::new(held);
        self.leases.borrow_mut().push(Arc::clone(&held));
        held
    }

    fn wish<'a>(&self, role: Option<&'a str>, isolation: Option<Isolation>, faults: bool) -> Wish<'a> {
        Wish { test: self.test, role, isolation: isolation.or(self.isolation), faults }
    }

    fn passed(&self) {
        for held in self.leases.borrow().iter() {
            if let Err(error) = held.tell_passed() {
                story::complain(&error);
            }
        }
    }

    fn failed(&self) {
        self.leases.borrow().iter().for_each(|held| story::tell_failure(held));
    }
}
