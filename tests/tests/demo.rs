//! The demo, as `make demo` runs it: up, customers, the table, down, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use weft_tests::programs::{built, output, require};

#[test]
fn the_demo_runs_and_leaves_nothing_behind() {
    require(&["ip", "nft", "curl", "nginx", "redis-server"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let programs = built("weft");
    let path = format!(
        "{}:{}",
        programs.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut demo = Command::new(root.join("examples/shop/demo.sh"));
    let ended = output(demo.env("SECONDS_OF_LOAD", "6").env("PATH", path));
    let text = String::from_utf8_lossy(&ended.stdout);
    let complaints = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.success(),
        "{}\n{text}\n{complaints}",
        ended.status
    );
    assert!(text.contains("Nothing left behind"), "{text}");
    // Every row of the table that is mutual TLS shows both identities and the post-quantum group.
    let web = text
        .lines()
        .find(|l| l.contains("shop/catalogue/80"))
        .unwrap_or_else(|| panic!("{text}"));
    for word in ["sa/web", "sa/catalogue", "TLSv1.3", "X25519MLKEM768"] {
        assert!(web.contains(word), "{word} is missing in {web:?}");
    }
}
