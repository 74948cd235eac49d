//! What alert rules and dashboards ask of Prometheus: as much of their files and of PromQL as that takes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// A query, and where it stands.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) text: String,
}

/// A metric in a query, with the labels that are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    pub(crate) labels: Vec<String>,
}

/// An alert rule.
#[derive(Debug, Default)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) runbook_url: String,
}

/// The alerts of a rules file, which has them in the form that ours has: a key a line, and `expr: |` before lines that are
/// indented further.
pub(crate) fn alerts(path: &Path) -> Vec<Alert> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut alerts: Vec<Alert> = Vec::new();
    let mut block: Option<usize> = None;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push(Alert { name: name.to_owned(), ..Alert::default() });
        }
        let Some(alert) = alerts.last_mut() else { continue };
        match block {
            Some(key) if indent > key => {
                alert.expression.push_str(line);
                alert.expression.push('\n');
                continue;
            }
            _ => block = None,
        }
        if line == "expr: |" {
            block = Some(indent);
        } else if let Some(expression) = line.strip_prefix("expr: ") {
            expression.clone_into(&mut alert.expression);
        } else if let Some(url) = line.strip_prefix("runbook_url: ") {
            url.clone_into(&mut alert.runbook_url);
        }
    }
    assert!(alerts.iter().all(|alert| !alert.expression.is_empty()), "{alerts:?}");
    alerts
}

/// The queries of a dashboard: its panels', its variables' and its annotations'.
pub(crate) fn of_dashboard(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    collect(dashboard, "the dashboard", &mut queries);
    queries
}

fn collect(value: &Value, place: &str, queries: &mut Vec<Query>) {
    match value {
        Value::Object(fields) => {
            let place = fields.get("title").or(fields.get("name")).and_then(Value::as_str).unwrap_or(place);
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "definition" => {
                        queries.push(Query { place: place.to_owned(), text: text.to_owned() });
                    }
                    _ => collect(value, place, queries),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, place, queries)),
        _ => {}
    }
}

/// Every metric in a query whose name begins with one of `prefixes`.
pub(crate) fn selectors(query: &str, prefixes: &[&str]) -> Vec<Selector> {
    let mut selectors = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_alphabetic() || letter == '"') {
        rest = &rest[at..];
        if let Some(literal) = rest.strip_prefix('"') {
            rest = literal.split_once('"').map_or("", |(_, after)| after);
            continue;
        }
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if prefixes.iter().any(|prefix| word.starts_with(prefix)) {
            let matchers =
                after.strip_prefix('{').and_then(|after| after.split_once('}')).map_or("", |(inside, _)| inside);
            let labels = label_names(matchers);
            selectors.push(Selector { metric: word.to_owned(), labels });
            // The labels are not metrics.
            rest = &after[if matchers.is_empty() { 0 } else { matchers.len() + 2 }..];
        }
    }
    selectors
}

/// The labels that a query groups by.
pub(crate) fn grouping(query: &str) -> BTreeSet<String> {
    let groups = query.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    groups
        .flat_map(|group| group.split(','))
        .map(|label| label.trim().to_owned())
        .filter(|label| !label.is_empty())
        .collect()
}

/// `a="1",b=~"2,3"` to `a`, `b`.
fn label_names(matchers: &str) -> Vec<String> {
    // Every other part is within quotes.
    let outside = matchers.split('"').step_by(2);
    let names = outside.map(|part| part.trim_matches(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_'));
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The parser finds what there is: else the tests would find nothing wrong.
pub(crate) fn check_itself() {
    let query = r#"sum by (model, le) (rate(convoy_a_bucket{model=~"$m,{x",le="convoy_no"}[5m])) / up{job="convoy"} > on () convoy_b"#;
    let found = selectors(query, &["convoy_", "up"]);
    let selector = |metric: &str, labels: &[&str]| Selector {
        metric: metric.to_owned(),
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
    };
    assert_eq!(
        found,
        [selector("convoy_a_bucket", &["model", "le"]), selector("up", &["job"]), selector("convoy_b", &[])]
    );
    assert_eq!(grouping(query).into_iter().collect::<Vec<_>>(), ["le", "model"]);
}
