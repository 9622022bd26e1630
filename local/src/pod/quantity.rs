//! Kubernetes quantities (`500m`, `64Mi`, `1e3`) as far as `resourceFieldRef` needs them.

use k8s_openapi::api::core::v1::Container;

/// The value of a container's `limits.cpu`, `requests.memory` and so on in units of the divisor, rounded up. A limit
/// that is not set is the machine's capacity, a request that is not set is 0.
pub(crate) fn resource(
    container: &Container,
    resource: &str,
    divisor: Option<&str>,
) -> Result<String, String> {
    let unsupported = || format!("resource {resource:?} is not supported");
    let (list, name) = resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()?.get(name));
    let request = resources.and_then(|r| r.requests.as_ref()?.get(name));
    let value = match (list, limit, request) {
        ("limits", Some(limit), _) => parse(&limit.0)?,
        ("limits", None, _) => capacity(name),
        ("requests", limit, Some(request)) => {
            parse(&request.0).or_else(|e| limit.map_or(Err(e), |l| parse(&l.0)))?
        }
        ("requests", Some(limit), None) => parse(&limit.0)?,
        ("requests", None, None) => 0.0,
        _ => return Err(unsupported()),
    };
    let divisor = match divisor.map(parse).transpose()? {
        Some(divisor) if divisor > 0.0 => divisor,
        _ => 1.0,
    };
    Ok(format!("{}", (value / divisor).ceil() as u64))
}

/// A quantity in its base unit: cores or bytes.
fn parse(quantity: &str) -> Result<f64, String> {
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, scale) = SUFFIXES
        .iter()
        .find_map(|(suffix, scale)| Some((quantity.strip_suffix(suffix)?, *scale)))
        .unwrap_or((quantity, 1.0));
    number
        .parse::<f64>()
        .map(|n| n * scale)
        .map_err(|_| format!("{quantity:?} is not a quantity"))
}

fn capacity(name: &str) -> f64 {
    match name {
        "cpu" => std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64),
        "memory" => memory_total().unwrap_or(0.0),
        _ => 0.0,
    }
}

fn memory_total() -> Option<f64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: f64 = info
        .lines()
        .find(|l| l.starts_with("MemTotal:"))?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::float_cmp)]
mod tests {
    use super::*;

    #[test]
    fn suffixes() {
        assert_eq!(parse("64Mi").unwrap(), 67_108_864.0);
        assert_eq!(parse("1500m").unwrap().ceil(), 2.0);
        assert_eq!(parse("1e3").unwrap(), 1000.0);
        assert_eq!(parse("2").unwrap(), 2.0);
        assert!(parse("much").is_err());
    }
}
