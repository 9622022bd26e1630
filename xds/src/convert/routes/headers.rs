//! Header edits.
//!
//! The model sets, adds, removes, in this order; Envoy removes first. So edits are brought to a form in which the order
//! does not matter: for each header, either removed, or set once and then added to. Envoy refuses edits of `host`,
//! which are left to its host rewrite.

use http::{HeaderName, HeaderValue};
use weft_model::route::HeaderEdits;
use weft_model::route::filter::{HeaderEdit, HeaderText};

use crate::convert::DecodeError;
use crate::convert::error::At as _;
use crate::convert::proto::{core, route};
use core::header_value_option::HeaderAppendAction;

/// What becomes of one header.
struct Fate<'a> {
    name: &'a HeaderName,
    /// Is what the message had gone?
    cleared: bool,
    values: Vec<&'a HeaderValue>,
}

/// Several edits, carried out one after the other, in the order of each header's first appearance.
fn fates<'a>(edits: &[&'a HeaderEdits]) -> Vec<Fate<'a>> {
    fn of<'a, 'f>(fates: &'f mut Vec<Fate<'a>>, name: &'a HeaderName) -> &'f mut Fate<'a> {
        let at = fates
            .iter()
            .position(|f| f.name == name)
            .unwrap_or_else(|| {
                fates.push(Fate {
                    name,
                    cleared: false,
                    values: Vec::new(),
                });
                fates.len() - 1
            });
        &mut fates[at]
    }
    let mut fates = Vec::new();
    for edits in edits {
        for edit in &edits.set {
            let fate = of(&mut fates, &edit.name.0);
            fate.cleared = true;
            fate.values = vec![&edit.value];
        }
        for edit in &edits.add {
            of(&mut fates, &edit.name.0).values.push(&edit.value);
        }
        for name in &edits.remove {
            let fate = of(&mut fates, &name.0);
            fate.cleared = true;
            fate.values.clear();
        }
    }
    fates
}

/// As Envoy's pair of lists.
pub(super) fn encode(edits: &[&HeaderEdits]) -> (Vec<core::HeaderValueOption>, Vec<String>) {
    let (mut set, mut add, mut remove) = (Vec::new(), Vec::new(), Vec::new());
    for fate in fates(edits) {
        if fate.name == http::header::HOST {
            continue;
        }
        let mut values = fate.values.into_iter();
        if fate.cleared {
            match values.next() {
                Some(value) => set.push(option(
                    fate.name,
                    value,
                    HeaderAppendAction::OverwriteIfExistsOrAdd,
                )),
                None => remove.push(fate.name.as_str().to_owned()),
            }
        }
        add.extend(
            values.map(|value| option(fate.name, value, HeaderAppendAction::AppendIfExistsOrAdd)),
        );
    }
    set.append(&mut add);
    (set, remove)
}

fn option(
    name: &HeaderName,
    value: &HeaderValue,
    action: HeaderAppendAction,
) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: name.as_str().to_owned(),
            // A single % would begin one of Envoy's command operators.
            value: String::from_utf8_lossy(value.as_bytes()).replace('%', "%%"),
            ..Default::default()
        }),
        append_action: action.into(),
        keep_empty_value: true,
        ..Default::default()
    }
}

/// From Envoy's pair of lists.
pub(super) fn decode(
    add: &[core::HeaderValueOption],
    remove: &[String],
) -> Result<HeaderEdits, DecodeError> {
    let mut edits = HeaderEdits::default();
    for (i, option) in add.iter().enumerate() {
        let edit = decode_option(option).at_index(i)?;
        match HeaderAppendAction::try_from(option.append_action) {
            Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => edits.set.push(edit),
            Ok(HeaderAppendAction::AppendIfExistsOrAdd) => edits.add.push(edit),
            _ => {
                return Err(DecodeError::new("not supported"))
                    .at("append_action")
                    .at_index(i);
            }
        }
    }
    for name in remove {
        edits
            .remove
            .push(HeaderText(name.parse().map_err(DecodeError::new)?));
    }
    Ok(edits)
}

fn decode_option(option: &core::HeaderValueOption) -> Result<HeaderEdit, DecodeError> {
    let header = option
        .header
        .as_ref()
        .ok_or_else(|| DecodeError::new("it is missing"))
        .at("header")?;
    Ok(HeaderEdit {
        name: HeaderText(
            header
                .key
                .parse()
                .map_err(DecodeError::new)
                .at("header.key")?,
        ),
        value: HeaderValue::from_str(&header.value.replace("%%", "%"))
            .map_err(DecodeError::new)
            .at("header.value")?,
    })
}

pub(super) fn encode_request(edits: &[&HeaderEdits], into: &mut route::Route) {
    (into.request_headers_to_add, into.request_headers_to_remove) = encode(edits);
}

pub(super) fn clear_request(into: &mut route::Route) {
    into.request_headers_to_add.clear();
    into.request_headers_to_remove.clear();
}

pub(super) fn encode_response(edits: &[&HeaderEdits], into: &mut route::Route) {
    (
        into.response_headers_to_add,
        into.response_headers_to_remove,
    ) = encode(edits);
}

pub(super) fn decode_request(from: &route::Route) -> Result<HeaderEdits, DecodeError> {
    decode(
        &from.request_headers_to_add,
        &from.request_headers_to_remove,
    )
    .at("request_headers_to_add")
}

pub(super) fn decode_response(from: &route::Route) -> Result<HeaderEdits, DecodeError> {
    decode(
        &from.response_headers_to_add,
        &from.response_headers_to_remove,
    )
    .at("response_headers_to_add")
}

/// Do two edits touch the same header?
pub(super) fn clash(a: &HeaderEdits, b: &HeaderEdits) -> bool {
    let b = fates(&[b]);
    fates(&[a])
        .iter()
        .any(|a| b.iter().any(|b| a.name == b.name))
}

/// The value that edits set `host` to, if they do.
pub(super) fn host(edits: &HeaderEdits) -> Option<String> {
    let fates = fates(&[edits]);
    let fate = fates
        .iter()
        .find(|f| f.name == http::header::HOST && f.cleared)?;
    fate.values
        .first()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
