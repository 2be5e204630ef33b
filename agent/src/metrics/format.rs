// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The formats of the exposition, and which of them a scraper gets.
//!
//! As Prometheus' documents have it (<https://prometheus.io/docs/instrumenting/content_negotiation/>): the scraper lists in
//! `Accept` what it understands, each with a weight, and gets the text format 0.0.4 unless it asks for OpenMetrics by name.

/// A format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4 of Prometheus.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// How closely a media range of `Accept` names a format; RFC 9110 section 12.5.1: the closest range decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    Anything,
    Group,
    Type,
    Version,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Text, Self::OpenMetrics];

    /// The value of the label `format`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::OpenMetrics => "openmetrics",
        }
    }

    /// What `Content-Type` says. Our names need no escaping, so there is nothing to say of it where the scraper allows it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format for a scraper that sends this `Accept`. One that understands neither gets text: so do the exporters that it
    /// knows.
    pub fn negotiate(accept: &str) -> Self {
        let open = Self::OpenMetrics.weight(accept);
        let text = Self::Text.weight(accept).map_or(0.0, |(_, weight)| weight);
        match open {
            // A wildcard is from one who takes what there is, and a browser shows text.
            Some((Closeness::Type | Closeness::Version, weight))
                if weight > 0.0 && weight >= text =>
            {
                Self::OpenMetrics
            }
            _ => Self::Text,
        }
    }

    /// The weight that `accept` gives this format, from 0 to 1, by the range that names it most closely.
    fn weight(self, accept: &str) -> Option<(Closeness, f64)> {
        let ranges = accept.split(',').filter_map(|range| self.matched(range));
        ranges.max_by(|(a, a_weight), (b, b_weight)| {
            a.cmp(b).then_with(|| a_weight.total_cmp(b_weight))
        })
    }

    /// How closely one range names this format, with its weight.
    fn matched(self, range: &str) -> Option<(Closeness, f64)> {
        let (kind, group, version) = match self {
            Self::Text => ("text/plain", "text/*", "0.0.4"),
            Self::OpenMetrics => ("application/openmetrics-text", "application/*", "1.0.0"),
        };
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().unwrap_or_default();
        let mut closeness = match named {
            "*/*" => Closeness::Anything,
            _ if named.eq_ignore_ascii_case(group) => Closeness::Group,
            _ if named.eq_ignore_ascii_case(kind) => Closeness::Type,
            _ => return None,
        };
        let mut weight = 1.0;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" if value == version => closeness = Closeness::Version,
                "version" => return None,
                "q" => weight = parse_weight(value)?,
                // charset and escaping: we write UTF-8, and names that are the same in every escaping.
                _ => {}
            }
        }
        Some((closeness, weight))
    }
}

/// A weight; `None` if it is none.
fn parse_weight(text: &str) -> Option<f64> {
    text.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_scraper_gets_what_it_asks_for() {
        // Prometheus 2 and 3, curl, a browser.
        for (accept, wanted) in [
            (
                "application/openmetrics-text;version=1.0.0,\
                 application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Text),
            ("", Format::Text),
            ("application/*", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("text/plain, application/openmetrics-text", Format::OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.9", Format::Text),
            ("text/plain;q=0.4, application/openmetrics-text; q=0.5", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=2", Format::Text),
            ("application/openmetrics-text;q=NaN", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
            // The closest range decides: the version that we have is refused, others are not.
            (
                "application/openmetrics-text;version=1.0.0;q=0,application/openmetrics-text",
                Format::Text,
            ),
            // Text is weighed by its own range, not by the wildcard.
            ("*/*,text/plain;q=0.1,application/openmetrics-text;q=0.5", Format::OpenMetrics),
        ] {
            assert_eq!(Format::negotiate(accept), wanted, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_sent(accept in ".*") {
            Format::negotiate(&accept);
        }

        #[test]
        fn the_heavier_one_is_given(open in 1_u32..=1000, text in 0_u32..=1000) {
            let [open_q, text_q] = [open, text].map(|weight| f64::from(weight) / 1000.0);
            let accept =
                format!("text/plain;q={text_q}, application/openmetrics-text;q={open_q}");
            let wanted = if open >= text { Format::OpenMetrics } else { Format::Text };
            prop_assert_eq!(Format::negotiate(&accept), wanted);
        }
    }
}
