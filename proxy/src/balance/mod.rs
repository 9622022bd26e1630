//! Which endpoint takes a request or connection, and what each has shown of itself so far.
//!
//! [`crate::backend`] keeps the state of one backend on one worker: it outlives snapshots, keyed by address. [`pick`] is the pure
//! choice, [`load`] and [`outlier`] what it goes by, [`limits`] the circuit breakers and the retry budget.

pub mod limits;
pub mod load;
pub mod outlier;
pub mod pick;
