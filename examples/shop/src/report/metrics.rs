//! One sidecar's metrics in Prometheus' text format, and percentiles of its histograms.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>: `name{label="value",...} number`.

use std::collections::BTreeMap;

/// What counts requests.
const PER_REQUEST: [&str; 3] = [
    "weft_outbound_requests_total",
    "weft_outbound_attempts_total",
    "weft_outbound_request_duration_seconds_bucket",
];

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Sample {
    /// A label's value; empty if it has no such label, as Prometheus sees it.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// All lines of a scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    /// Lines that are comments or make no sense are left out.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(parse_line).collect())
    }

    /// Those of one metric.
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// Takes off what requests had come to at an earlier scrape. Connections, handshakes and identities stay as they
    /// are: those of long ago are still in use. What has become less was restarted, and counts in full.
    pub(crate) fn since(&mut self, earlier: &Self) {
        let key = |sample: &Sample| (sample.name.clone(), sample.labels.clone());
        let before: BTreeMap<_, _> = earlier.0.iter().map(|s| (key(s), s.value)).collect();
        for sample in self
            .0
            .iter_mut()
            .filter(|s| PER_REQUEST.contains(&s.name.as_str()))
        {
            if let Some(value) = before.get(&key(sample)).filter(|&&v| v <= sample.value) {
                sample.value -= value;
            }
        }
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A timestamp may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.into(),
        labels,
        value,
    })
}

/// From after the opening brace; gives what follows the closing one.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (i, c) in quoted.char_indices() {
            match c {
                'n' if escaped => value.push('\n'),
                _ if escaped => value.push(c),
                '\\' => {
                    escaped = true;
                    continue;
                }
                '"' => {
                    end = Some(i);
                    break;
                }
                _ => value.push(c),
            }
            escaped = false;
        }
        labels.insert(name.to_owned(), value);
        rest = &quoted[end? + 1..];
    }
}

/// A histogram's buckets: upper bound and how many are at most that, summed over several series.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    /// Adds one `..._bucket` line.
    pub(crate) fn add(&mut self, sample: &Sample) {
        let Ok(bound) = sample.label("le").parse::<f64>() else {
            return;
        };
        match self
            .0
            .iter_mut()
            .find(|(b, _)| (*b).total_cmp(&bound).is_eq())
        {
            Some((_, count)) => *count += sample.value,
            None => self.0.push((bound, sample.value)),
        }
        self.0.sort_by(|a, b| a.0.total_cmp(&b.0));
    }

    /// Where `share` (0 to 1) of the observations lie below, by linear interpolation within the bucket, as Prometheus'
    /// `histogram_quantile` has it: of the last bucket, which has no end, the lower bound.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let total = self.0.last().map(|b| b.1).filter(|&t| t > 0.0)?;
        let rank = total * share;
        let (mut low, mut below) = (0.0, 0.0);
        for &(high, count) in &self.0 {
            if count >= rank && count > below {
                let part = (rank - below) / (count - below);
                return Some(if high.is_finite() {
                    low + (high - low) * part
                } else {
                    low
                });
            }
            (low, below) = (high, count);
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_labels_with_escapes_and_skips_noise() {
        let text = "# HELP a b\na{x=\"1\",y=\"q\\\"\\\\\\n,}\"} 2.5 1700000000\nb 3\nnonsense\nc{x=\"1 4\n# EOF\n";
        let samples = Samples::parse(text);
        assert_eq!(samples.0.len(), 2);
        let a = samples.named("a").next().unwrap();
        assert_eq!(
            (a.label("x"), a.label("y"), a.label("z"), a.value),
            ("1", "q\"\\\n,}", "", 2.5)
        );
    }

    #[test]
    fn requests_count_since_and_handshakes_in_all() {
        let mut now = Samples::parse(
            "weft_outbound_requests_total{destination=\"a\"} 5\nweft_outbound_requests_total{destination=\"b\"} 2\n\
             weft_outbound_attempts_total{destination=\"a\"} 1\nweft_tls_handshakes_total{peer=\"a\"} 3\n",
        );
        let before = Samples::parse(
            "weft_outbound_requests_total{destination=\"a\"} 3\nweft_outbound_attempts_total{destination=\"a\"} 7\n\
             weft_tls_handshakes_total{peer=\"a\"} 3\n",
        );
        now.since(&before);
        let values: Vec<_> = now.0.iter().map(|s| s.value).collect();
        assert_eq!(values, [2.0, 2.0, 1.0, 3.0]);
    }

    #[test]
    fn percentiles_lie_within_their_bucket() {
        let mut buckets = Buckets::default();
        let text = "h_bucket{le=\"0.1\"} 50\nh_bucket{le=\"0.2\"} 90\nh_bucket{le=\"+Inf\"} 100\n";
        for sample in Samples::parse(text).named("h_bucket") {
            buckets.add(sample);
        }
        let at = |share| buckets.percentile(share).unwrap();
        assert!(
            (at(0.5) - 0.1).abs() < 1e-9
                && (at(0.7) - 0.15).abs() < 1e-9
                && (at(0.99) - 0.2).abs() < 1e-9
        );
        assert_eq!(Buckets::default().percentile(0.5), None);
    }
}
