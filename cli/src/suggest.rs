//! The nearest valid name for a misspelt one.

/// ` (did you mean ...?)`, or what there is, or nothing.
pub(crate) fn hint<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match weft_k8s::problem::nearest(wrong, known.iter().copied()) {
        Some(name) => format!("; did you mean {name:?}?"),
        None if known.is_empty() => String::new(),
        None if known.len() <= 8 => format!("; there is {}", known.join(", ")),
        None => format!(
            "; there are {} others, e.g. {}",
            known.len(),
            known[..5].join(", ")
        ),
    }
}
