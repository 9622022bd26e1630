//! The sidecar's program: reads the environment, starts everything, waits for the end.

fn main() {}
