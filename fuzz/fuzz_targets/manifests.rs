//! Kubernetes manifests: any text is read to its end, and what is read is named as the file has it.
#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weft_k8s::parse::parse;
use weft_model::UnixMillis;

static FILE: LazyLock<Arc<PathBuf>> = LazyLock::new(|| Arc::new("fuzz.yaml".into()));

fuzz_target!(|text: &str| {
    let parsed = parse(&FILE, text, UnixMillis(0));
    let lines = u32::try_from(text.split(['\n', '\r']).count()).unwrap_or(u32::MAX);
    for object in &parsed.objects {
        assert!(
            !object.key().name.is_empty(),
            "{:?} has no name",
            object.kind()
        );
        assert!(object.source().line as usize <= lines as usize + 1);
    }
    for problem in &parsed.problems {
        assert!(!problem.reason.is_empty());
    }
    assert!(
        !parsed.unreadable || !parsed.problems.is_empty(),
        "unreadable, and no reason given"
    );
});
