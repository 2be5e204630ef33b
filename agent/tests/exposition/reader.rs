// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A strict reader of both formats of the exposition, by their specifications: it refuses what a scraper might forgive.

use migscope::metrics::Format;
use std::collections::{BTreeMap, BTreeSet};

/// Labels of a series, `le` as the number that it is: the formats write it in different ways.
pub(crate) type Labels = BTreeMap<String, String>;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) value: f64,
    pub(crate) exemplar: Option<(Labels, f64)>,
}

/// One family with its samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

/// Reads an exposition; the error says what is wrong with which line.
pub(crate) fn read(text: &str, format: Format) -> Result<Vec<Family>, String> {
    let open = format == Format::OpenMetrics;
    let body = match (open, text.strip_suffix("# EOF\n")) {
        (true, Some(body)) => body,
        (true, None) => return Err("it does not end in # EOF".into()),
        (false, _) => text,
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let mut families: Vec<Family> = Vec::new();
    for line in body.split_terminator('\n') {
        let wrong = |why: &str| format!("{why}: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            let (key, rest) = comment.split_once(' ').ok_or_else(|| wrong("no name"))?;
            let (name, told) = rest.split_once(' ').ok_or_else(|| wrong("nothing told"))?;
            if families.last().is_none_or(|family| family.name != name) {
                if families.iter().any(|family| family.name == name) {
                    return Err(wrong("the family was told of before"));
                }
                families.push(Family { name: identifier(name)?.into(), ..Family::default() });
            }
            let family = families.last_mut().ok_or_else(|| wrong("no family"))?;
            if !family.samples.is_empty() {
                return Err(wrong("told after a sample"));
            }
            let told_twice = match key {
                "TYPE" => !std::mem::replace(&mut family.kind, told.into()).is_empty(),
                "UNIT" if open => family.unit.replace(told.into()).is_some(),
                "HELP" => family.help.replace(unescape(told, open)?).is_some(),
                _ => return Err(wrong("not a line of this format")),
            };
            if told_twice {
                return Err(wrong("told twice"));
            }
        } else {
            let sample = sample(line, open).map_err(|why| wrong(&why))?;
            let family = families.last_mut().ok_or_else(|| wrong("a sample of no family"))?;
            let suffix = sample.name.strip_prefix(&family.name);
            let suffix = suffix.ok_or_else(|| wrong("a sample of another family"))?;
            let sound = match family.kind.as_str() {
                "counter" => suffix == if open { "_total" } else { "" },
                "gauge" => suffix.is_empty(),
                "info" => open && suffix == "_info",
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                _ => return Err(wrong("a family of no known type")),
            };
            if !sound {
                return Err(wrong("a sample that its type does not have"));
            }
            family.samples.push(sample);
        }
    }
    for family in &families {
        check(family).map_err(|why| format!("{}: {why}", family.name))?;
    }
    Ok(families)
}

fn check(family: &Family) -> Result<(), String> {
    let Family { name, kind, unit, samples, .. } = family;
    if samples.is_empty() {
        return Err("it has no samples".into());
    }
    if unit.as_ref().is_some_and(|unit| !name.ends_with(&format!("_{unit}"))) {
        return Err("its name does not end in its unit".into());
    }
    let mut seen = BTreeSet::new();
    for sample in samples {
        if !seen.insert((&sample.name, &sample.labels)) {
            return Err(format!("twice: {sample:?}"));
        }
        let value = sample.value;
        if (kind == "counter" && !(value >= 0.0 && value.is_finite()))
            || (kind == "info" && value.to_bits() != 1.0_f64.to_bits())
            || (sample.exemplar.is_some() && !sample.name.ends_with("_bucket"))
        {
            return Err(format!("not of its type: {sample:?}"));
        }
    }
    if kind == "histogram" { histogram(family) } else { Ok(()) }
}

/// Each series: buckets in ascending order up to `+Inf`, their counts too, then the sum and the count.
fn histogram(family: &Family) -> Result<(), String> {
    let mut samples = family.samples.iter().peekable();
    while let Some(first) = samples.peek() {
        let mut series = first.labels.clone();
        series.remove("le");
        let (mut bound, mut below) = (f64::NEG_INFINITY, 0.0);
        while let Some(bucket) = samples.next_if(|sample| sample.name.ends_with("_bucket")) {
            let mut labels = bucket.labels.clone();
            let le = labels.remove("le").ok_or("no le")?;
            let le: f64 = le.parse().map_err(|error| format!("{le}: {error}"))?;
            if labels != series || le <= bound || bucket.value < below {
                return Err(format!("out of order: {bucket:?}"));
            }
            if let Some((_, value)) = bucket.exemplar
                && !(bound < value && value <= le)
            {
                return Err(format!("the exemplar is of another bucket: {bucket:?}"));
            }
            (bound, below) = (le, bucket.value);
            if le == f64::INFINITY {
                break;
            }
        }
        let rest = [samples.next(), samples.next()].map(Option::<&Sample>::cloned);
        let [Some(sum), Some(count)] = rest else { return Err("no sum or no count".into()) };
        if bound != f64::INFINITY
            || (sum.name, sum.labels) != (format!("{}_sum", family.name), series.clone())
            || (count.name, count.labels) != (format!("{}_count", family.name), series)
            || count.value.to_bits() != below.to_bits()
        {
            return Err("the buckets, the sum and the count do not belong together".into());
        }
    }
    Ok(())
}

fn sample(line: &str, open: bool) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = labels(rest)?;
    let rest = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let (value, exemplar) = match rest.split_once(" # ") {
        Some((value, exemplar)) if open => (value, Some(read_exemplar(exemplar)?)),
        Some(_) => return Err("this format has no exemplars".into()),
        None => (rest, None),
    };
    Ok(Sample { name: identifier(name)?.into(), labels, value: number(value)?, exemplar })
}

fn read_exemplar(text: &str) -> Result<(Labels, f64), String> {
    let (labels, rest) = labels(text)?;
    let length: usize = labels.iter().map(|(a, b)| a.chars().count() + b.chars().count()).sum();
    if length > 128 {
        return Err("an exemplar that is too long".into());
    }
    let rest = rest.strip_prefix(' ').ok_or("no space before the exemplar's value")?;
    let (value, at) = rest.split_once(' ').unwrap_or((rest, "0"));
    number(at)?;
    Ok((labels, number(value)?))
}

/// Labels in their braces, if there are any, and what follows.
fn labels(text: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Ok((labels, text)) };
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        let mut escaped = false;
        let end = value.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        let (value, after) = value.split_at(end.ok_or("a value that does not end")?);
        let mut value = unescape(value, true)?;
        if name == "le" {
            value = number(&value)?.to_string();
        }
        if labels.insert(identifier(name)?.into(), value).is_some() {
            return Err("a label twice".into());
        }
        let after = after.strip_prefix('"').ok_or("a value that does not end")?;
        if let Some(after) = after.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = after.strip_prefix(',').ok_or("neither a comma nor a brace after a label")?;
    }
}

/// `quotes`: whether `"` is to be escaped.
fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('\\') => '\\',
                Some('"') if quotes => '"',
                other => return Err(format!("\\{other:?} is no escape")),
            },
            '"' if quotes => return Err("a quote that is not escaped".into()),
            other => other,
        });
    }
    Ok(plain)
}

fn identifier(name: &str) -> Result<&str, String> {
    let first = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic());
    let rest = name.chars().all(|other| other.is_ascii_alphanumeric() || other == '_');
    if first && rest { Ok(name) } else { Err(format!("{name} is no name")) }
}

fn number(text: &str) -> Result<f64, String> {
    match text {
        // Rust's own names for them are what the crate prometheus writes in 0.0.4; Go reads both.
        "+Inf" | "inf" => Ok(f64::INFINITY),
        "-Inf" | "-inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ if text.chars().all(|c| c.is_ascii_digit() || "+-.e".contains(c)) => {
            text.parse().map_err(|error| format!("{text}: {error}"))
        }
        _ => Err(format!("{text} is no number")),
    }
}

#[test]
fn the_reader_refuses_what_is_wrong() {
    let sound =
        "# TYPE a counter\n# HELP a H \\\"q\\\".\na_total{b=\"\\\\ \\n \\\"\"} 1.0\n# EOF\n";
    let families = read(sound, Format::OpenMetrics).expect("sound");
    assert_eq!(families[0].samples[0].labels["b"], "\\ \n \"");
    assert_eq!(families[0].help.as_deref(), Some("H \"q\"."));
    for (what, wrong) in [
        ("cut off", "# TYPE a counter\na_total 1.0\n"),
        ("no samples", "# TYPE a counter\n# EOF\n"),
        ("counter without _total", "# TYPE a counter\na 1.0\n# EOF\n"),
        ("negative counter", "# TYPE a counter\na_total -1.0\n# EOF\n"),
        ("bad escape", "# TYPE a gauge\na{b=\"\\t\"} 1.0\n# EOF\n"),
        ("open quote", "# TYPE a gauge\na{b=\"\"\"} 1.0\n# EOF\n"),
        ("empty line", "# TYPE a gauge\n\na 1.0\n# EOF\n"),
        ("series twice", "# TYPE a gauge\na 1.0\na 2.0\n# EOF\n"),
        (
            "family twice",
            "# TYPE a gauge\na 1.0\n# TYPE b gauge\nb 1\n# TYPE a gauge\na 1\n# EOF\n",
        ),
        ("other unit", "# TYPE a_bytes gauge\n# UNIT a_bytes seconds\na_bytes 1.0\n# EOF\n"),
        ("not a number", "# TYPE a gauge\na infinity\n# EOF\n"),
        ("info that is 0", "# TYPE a info\na_info 0.0\n# EOF\n"),
        ("no +Inf", "# TYPE a histogram\na_bucket{le=\"1.0\"} 0\na_sum 0.0\na_count 0\n# EOF\n"),
        (
            "shrinking",
            "# TYPE a histogram\na_bucket{le=\"1.0\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 0.0\na_count 1\n# EOF\n",
        ),
        (
            "exemplar of another bucket",
            "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1 # {x=\"y\"} +Inf\na_bucket{le=\"1.0\"} 1\na_sum 0.0\na_count 1\n# EOF\n",
        ),
        ("exemplar of a gauge", "# TYPE a gauge\na 1.0 # {x=\"y\"} 1.0\n# EOF\n"),
    ] {
        assert!(read(wrong, Format::OpenMetrics).is_err(), "{what}");
    }
}
