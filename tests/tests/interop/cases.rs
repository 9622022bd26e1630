//! The table of routing cases. Backends are distinguished by the version that answers, so that a running proxy shows its choice.

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Answered by this version (`v1` or `v2`).
    Version(&'static str),
    /// The proxy's own answer.
    Status(u16),
    /// A redirect: status and `Location`.
    Redirect(u16, &'static str),
    /// Answered by v1, which saw this path and query.
    Path(&'static str),
}

use Expect::{Path, Redirect, Status, Version};

/// A request and what becomes of it.
pub(crate) struct Case {
    /// The service that it goes to.
    pub(crate) service: &'static str,
    /// The method.
    pub(crate) method: &'static str,
    /// Path and query.
    pub(crate) path: &'static str,
    /// Further headers.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// The answer.
    pub(crate) expect: Expect,
}

const fn get(service: &'static str, path: &'static str, expect: Expect) -> Case {
    Case {
        service,
        method: "GET",
        path,
        headers: &[],
        expect,
    }
}

const fn with(
    service: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    expect: Expect,
) -> Case {
    Case {
        service,
        method: "GET",
        path,
        headers,
        expect,
    }
}

const fn method(
    service: &'static str,
    method: &'static str,
    path: &'static str,
    expect: Expect,
) -> Case {
    Case {
        service,
        method,
        path,
        headers: &[],
        expect,
    }
}

/// At least forty.
pub(crate) const CASES: &[Case] = &[
    // No route attached: the service itself.
    get("echo-v1", "/", Version("v1")),
    get("echo-v2", "/any?x=1", Version("v2")),
    // Path matches: exact before prefix, prefixes by whole segments, the longest first, whatever their order in the file.
    get("paths", "/", Version("v1")),
    get("paths", "/exact", Version("v2")),
    get("paths", "/exact/", Version("v1")),
    get("paths", "/exact?query=1", Version("v2")),
    get("paths", "/Exact", Version("v1")),
    get("paths", "/prefix", Version("v2")),
    get("paths", "/prefix/", Version("v2")),
    get("paths", "/prefix/deeper", Version("v2")),
    get("paths", "/prefixed", Version("v1")),
    get("paths", "/prefix/v1", Version("v1")),
    get("paths", "/prefix/v1/more", Version("v1")),
    get("paths", "/prefix/v11", Version("v2")),
    get("paths", "/regex/123", Version("v2")),
    get("paths", "/regex/123/x", Version("v1")),
    get("paths", "/x/regex/123", Version("v1")),
    get("paths", "/%65xact", Version("v1")),
    get("paths", "/a//b", Version("v1")),
    // Nothing matches.
    get("only", "/only", Version("v1")),
    get("only", "/other", Status(404)),
    // Methods.
    method("methods", "POST", "/", Version("v2")),
    method("methods", "GET", "/", Version("v1")),
    method("methods", "PUT", "/put", Version("v2")),
    method("methods", "PATCH", "/put", Version("v1")),
    // Headers: all of them, exact and regex, names without case.
    with("headers", "/", &[("X-Version", "two")], Version("v2")),
    with("headers", "/", &[("x-version", "two")], Version("v2")),
    with("headers", "/", &[("X-Version", "Two")], Version("v1")),
    with("headers", "/", &[("X-Version", "two ,")], Version("v1")),
    with("headers", "/", &[("X-Number", "42")], Version("v2")),
    with("headers", "/", &[("X-Number", "42a")], Version("v1")),
    with("headers", "/", &[("X-A", "1")], Version("v1")),
    with("headers", "/", &[("X-A", "1"), ("X-B", "2")], Version("v2")),
    // Query parameters.
    get("queries", "/?version=two", Version("v2")),
    get("queries", "/?version=two&version=one", Version("v2")),
    get("queries", "/?version=one&version=two", Version("v1")),
    get("queries", "/?Version=two", Version("v1")),
    get("queries", "/?a=b&version=two", Version("v2")),
    get("queries", "/?version", Version("v1")),
    get("queries", "/?id=77", Version("v2")),
    get("queries", "/", Version("v1")),
    // Ties: more headers before more queries; method before headers; then the older route.
    with("ties", "/?q=1&r=1", &[("X-One", "1")], Version("v2")),
    with("ties", "/", &[("X-One", "1")], Version("v2")),
    Case {
        service: "ties",
        method: "POST",
        path: "/",
        headers: &[("X-One", "1")],
        expect: Version("v1"),
    },
    get("ties", "/?q=1&r=1", Version("v1")),
    // Redirects.
    get(
        "redirects",
        "/moved/here?q=1",
        Redirect(301, "https://example.org/there/here?q=1"),
    ),
    get(
        "redirects",
        "/full/x",
        Redirect(302, "http://redirects/everything"),
    ),
    get(
        "redirects",
        "/port",
        Redirect(302, "http://redirects:8443/port"),
    ),
    get(
        "redirects",
        "/strip/x/y",
        Redirect(302, "http://redirects/x/y"),
    ),
    // Rewrites.
    get("rewrites", "/old/x?q=1", Path("/new/x?q=1")),
    get("rewrites", "/old", Path("/new")),
    get("rewrites", "/strip/x", Path("/x")),
    get("rewrites", "/strip", Path("/")),
    get("rewrites", "/full/anything?q=1", Path("/replaced?q=1")),
    get("rewrites", "/untouched", Path("/untouched")),
    // Weights and broken references.
    get("weights", "/", Version("v2")),
    get("weights", "/none", Status(500)),
    get("weights", "/broken", Status(500)),
];

/// The services and routes of the table.
pub(crate) fn manifest() -> String {
    let service = |service: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: app}}\nspec:\n  selector: {{app: echo}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n"
        )
    };
    let services = [
        "paths",
        "only",
        "methods",
        "headers",
        "queries",
        "ties",
        "redirects",
        "rewrites",
        "weights",
    ];
    services.map(service).concat() + include_str!("routes.yaml")
}
