//! Which images testenv may start: references to images, and `images.toml`, the file that pins each by digest.
//!
//! A tag can be moved to another image at any time; a digest is the image. So a workspace writes down, in one
//! file that is reviewed like code, the digest behind every tag it uses, and nothing starts that is not in it.
//!
//! Parsing, checking and looking up only. Nothing here reads a file, asks a registry or talks to an engine. The
//! reference in `docs/images.md` is generated from the documentation comments of the file's types.

#![forbid(unsafe_code)]

mod digest;
mod fault;
mod file;
mod near;
mod pins;
mod reference;

pub use digest::{Digest, DigestError};
pub use fault::{Fault, PinsError};
#[cfg(feature = "schema")]
pub use file::schema;
pub use file::{MAX_FILE_BYTES, MAX_IMAGES};
pub use pins::{Pin, Pins, ResolveError};
pub use reference::{Reason, Reference, ReferenceError};
