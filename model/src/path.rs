//! Path prefixes by whole segments, as the Gateway API means them.

/// Does `path` begin with the segments of `prefix`? `prefix` has no trailing slash but for `/` itself.
pub fn has_prefix(path: &str, prefix: &str) -> bool {
    if prefix == "/" {
        return path.starts_with('/');
    }
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Replaces the matched `prefix` of `path` (Gateway API `ReplacePrefixMatch`, with its table of slashes):
/// `/foo/bar` with `/foo` to `/xyz` or `/xyz/` is `/xyz/bar`; to `` or `/` it is `/bar`; `/foo` to `/` is `/`.
pub fn replace_prefix(path: &str, prefix: &str, replacement: &str) -> String {
    let rest = path
        .strip_prefix(prefix.trim_end_matches('/'))
        .unwrap_or(path);
    let replacement = replacement.trim_end_matches('/');
    match (replacement.is_empty(), rest.is_empty()) {
        (true, true) => "/".to_owned(),
        (_, true) => replacement.to_owned(),
        _ if rest.starts_with('/') => format!("{replacement}{rest}"),
        _ => format!("{replacement}/{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_whole_segments() {
        for (path, prefix, yes) in [
            ("/foo", "/foo", true),
            ("/foo/", "/foo", true),
            ("/foo/bar", "/foo", true),
            ("/foobar", "/foo", false),
            ("/fo", "/foo", false),
            ("/", "/", true),
            ("*", "/", false),
        ] {
            assert_eq!(has_prefix(path, prefix), yes, "{path} {prefix}");
        }
    }

    /// The table in the documentation of `HTTPPathModifier.replacePrefixMatch`.
    #[test]
    fn the_gateway_apis_own_table() {
        for (path, prefix, replacement, result) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
        ] {
            assert_eq!(
                replace_prefix(path, prefix, replacement),
                result,
                "{path} {prefix} -> {replacement}"
            );
        }
    }
}
