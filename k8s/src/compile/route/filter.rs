//! Filters of rules and backend references.

use http::HeaderValue;
use weft_model::Hostname;
use weft_model::route::filter::{HeaderEdit, HeaderText, Scheme};
use weft_model::route::{HeaderEdits, PathRewrite, Redirect, Rewrite};

use super::fault::{Fault, check_backend, header_name};
use super::spec::{
    BackendRef, Filter, HeaderModifier, Named, PathModifier, RequestMirror, RequestRedirect,
};

/// What the filters of a rule do.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) request_headers: HeaderEdits,
    pub(super) response_headers: HeaderEdits,
    pub(super) rewrite: Rewrite,
    pub(super) redirect: Option<Redirect>,
    pub(super) mirrors: Vec<DraftMirror>,
}

/// A mirror whose backend is not looked up yet.
pub(super) struct DraftMirror {
    pub(super) field: String,
    pub(super) backend: BackendRef,
    pub(super) numerator: u32,
    pub(super) denominator: u32,
}

impl Effects {
    /// Does it replace the prefix that was matched?
    pub(super) fn needs_prefix(&self) -> bool {
        let redirect = self.redirect.as_ref().and_then(|r| r.path.as_ref());
        [redirect, self.rewrite.path.as_ref()]
            .iter()
            .any(|p| matches!(p, Some(PathRewrite::Prefix(_))))
    }
}

/// Reads the filters of a rule. `field` is the rule's path.
pub(super) fn effects(filters: &[Filter], field: &str, faults: &mut Vec<Fault>) -> Effects {
    let mut effects = Effects::default();
    for (i, filter) in filters.iter().enumerate() {
        let field = format!("{field}.filters[{i}]");
        if let Err(fault) = one(filter, &field, &mut effects, faults) {
            faults.push(fault);
        }
    }
    if effects.redirect.is_some() && !effects.rewrite.is_empty() {
        let reason = "URLRewrite and RequestRedirect cannot stand in one rule";
        faults.push(Fault::new(format!("{field}.filters"), reason));
    }
    effects
}

fn one(
    filter: &Filter,
    field: &str,
    effects: &mut Effects,
    faults: &mut Vec<Fault>,
) -> Result<(), Fault> {
    if header_filter(
        filter,
        field,
        &mut effects.request_headers,
        &mut effects.response_headers,
    )? {
        return Ok(());
    }
    match (
        filter.r#type.as_str(),
        &filter.request_redirect,
        &filter.url_rewrite,
        &filter.request_mirror,
    ) {
        ("RequestRedirect", Some(redirect), _, _) => {
            effects.redirect = Some(to_redirect(redirect, &format!("{field}.requestRedirect"))?);
        }
        ("URLRewrite", _, Some(rewrite), _) => {
            let field = format!("{field}.urlRewrite");
            effects.rewrite = Rewrite {
                hostname: hostname(rewrite.hostname.as_ref(), &field)?,
                path: path(rewrite.path.as_ref(), &field)?,
            };
        }
        ("RequestMirror", _, _, Some(mirror)) => {
            let field = format!("{field}.requestMirror");
            check_backend(&mirror.backend_ref, &format!("{field}.backendRef"), faults);
            effects.mirrors.push(to_mirror(mirror, field)?);
        }
        (kind @ ("ExtensionRef" | "CORS" | "ExternalAuth"), ..) => {
            let fault = Fault::new(
                format!("{field}.type"),
                format!("the filter {kind} is not supported"),
            );
            return Err(fault
                .hint("requests that match this rule are answered 500")
                .unsupported());
        }
        (kind, ..) => return Err(without_body(kind, field)),
    }
    Ok(())
}

fn without_body(kind: &str, field: &str) -> Fault {
    Fault::new(
        field,
        format!("a filter of the type {kind} needs the field of that name"),
    )
}

/// Is it a header filter? Then its edits are added.
pub(super) fn header_filter(
    filter: &Filter,
    field: &str,
    request: &mut HeaderEdits,
    response: &mut HeaderEdits,
) -> Result<bool, Fault> {
    let (modifier, edits, name) = match filter.r#type.as_str() {
        "RequestHeaderModifier" => (
            &filter.request_header_modifier,
            request,
            "requestHeaderModifier",
        ),
        "ResponseHeaderModifier" => (
            &filter.response_header_modifier,
            response,
            "responseHeaderModifier",
        ),
        _ => return Ok(false),
    };
    let modifier = modifier
        .as_ref()
        .ok_or_else(|| without_body(&filter.r#type, field))?;
    add_edits(modifier, &format!("{field}.{name}"), edits)?;
    Ok(true)
}

fn add_edits(modifier: &HeaderModifier, field: &str, edits: &mut HeaderEdits) -> Result<(), Fault> {
    let edit = |h: &Named, field: String| {
        let value = HeaderValue::from_str(&h.value)
            .ok()
            .filter(|v| v.to_str().is_ok())
            .ok_or_else(|| {
                Fault::new(
                    format!("{field}.value"),
                    format!("{:?} is not a header value", h.value),
                )
            })?;
        Ok(HeaderEdit {
            name: HeaderText(header_name(&h.name, &field)?),
            value,
        })
    };
    for (i, h) in modifier.set.iter().enumerate() {
        edits.set.push(edit(h, format!("{field}.set[{i}]"))?);
    }
    for (i, h) in modifier.add.iter().enumerate() {
        edits.add.push(edit(h, format!("{field}.add[{i}]"))?);
    }
    for (i, name) in modifier.remove.iter().enumerate() {
        edits.remove.push(HeaderText(header_name(
            name,
            &format!("{field}.remove[{i}]"),
        )?));
    }
    Ok(())
}

fn to_redirect(redirect: &RequestRedirect, field: &str) -> Result<Redirect, Fault> {
    let status = redirect.status_code.unwrap_or(302);
    let status = [301, 302, 303, 307, 308]
        .into_iter()
        .find(|s| i64::from(*s) == status)
        .ok_or_else(|| {
            Fault::new(
                format!("{field}.statusCode"),
                format!("{status} is none of 301, 302, 303, 307 and 308"),
            )
        })?;
    let port = redirect
        .port
        .map(|p| u16::try_from(p).ok().filter(|p| *p > 0).ok_or(p))
        .transpose();
    Ok(Redirect {
        scheme: match redirect.scheme.as_deref() {
            Some("https") => Some(Scheme::Https),
            Some(_) => Some(Scheme::Http),
            None => None,
        },
        hostname: hostname(redirect.hostname.as_ref(), field)?,
        path: path(redirect.path.as_ref(), field)?,
        port: port.map_err(|p| {
            Fault::new(
                format!("{field}.port"),
                format!("{p} is not a port: expected 1 to 65535"),
            )
        })?,
        status,
    })
}

fn hostname(text: Option<&String>, field: &str) -> Result<Option<Hostname>, Fault> {
    text.map(|h| h.parse())
        .transpose()
        .map_err(|e| Fault::new(format!("{field}.hostname"), e))
}

fn path(path: Option<&PathModifier>, field: &str) -> Result<Option<PathRewrite>, Fault> {
    let Some(path) = path else { return Ok(None) };
    let missing = |name: &str| {
        Fault::new(
            format!("{field}.path"),
            format!("the type {} needs {name}", path.r#type),
        )
    };
    Ok(Some(match path.r#type.as_str() {
        "ReplacePrefixMatch" => PathRewrite::Prefix(
            path.replace_prefix_match
                .clone()
                .ok_or_else(|| missing("replacePrefixMatch"))?,
        ),
        _ => PathRewrite::Full(
            path.replace_full_path
                .clone()
                .ok_or_else(|| missing("replaceFullPath"))?,
        ),
    }))
}

/// A share of 100, 10,000 or 1,000,000, which is what xDS can say; other fractions are rounded down to a millionth.
fn to_mirror(mirror: &RequestMirror, field: String) -> Result<DraftMirror, Fault> {
    let (numerator, denominator) = match (&mirror.fraction, mirror.percent) {
        (Some(f), _) => (f.numerator, f.denominator.unwrap_or(100)),
        (None, Some(percent)) => (percent, 100),
        (None, None) => (100, 100),
    };
    if denominator < 1 || !(0..=denominator).contains(&numerator) {
        let reason = format!("{numerator} of {denominator} is not a share of the requests");
        return Err(Fault::new(field, reason));
    }
    let (numerator, denominator) = match denominator {
        100 | 10_000 | 1_000_000 => (numerator, denominator),
        other => (numerator * 1_000_000 / other, 1_000_000),
    };
    Ok(DraftMirror {
        field,
        backend: mirror.backend_ref.clone(),
        numerator: u32::try_from(numerator).unwrap_or(u32::MAX),
        denominator: u32::try_from(denominator).unwrap_or(u32::MAX),
    })
}
