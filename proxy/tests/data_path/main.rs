//! The data path in one process: two sidecars over loopback, a real xDS server between them, generated certificates.
//!
//! Nothing redirects here: [`mesh::Pod::dial`] says where a connection was going, as the kernel would. Everything else is what
//! runs in a pod.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod app;
mod http;
mod http2;
mod mesh;
mod pki;
mod policy;
mod resilience;
mod tcp;

/// Runs a test on a worker's kind of runtime, and fails it when it hangs.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limited = async {
        tokio::time::timeout(std::time::Duration::from_secs(20), test)
            .await
            .expect("the test hangs");
    };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}
