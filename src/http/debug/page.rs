//! The page: tables without scripts, in the style of the other pages.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{Debug, Failure, GraphJson, ModelJson, Used};

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>convoy: state</title>
<link rel="icon" href="/page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page/page.css">
</head>
<body>
<header class="bar">
  <p class="mark"><img src="/page/icon.svg" alt="" width="20" height="20"> convoy</p>
  <nav aria-label="Views">
    <a href="/#classify">Classify</a>
    <a href="/#network">Network</a>
    <a href="/#server">Server</a>
    <a href="/docs">API</a>
    <a href="/debug" aria-current="page">State</a>
  </nav>
</header>
<main>
<h1>The server at this moment</h1>
"#;

const MODELS: &str = r#"<h2>Models</h2>
<div class="scroll"><table>
<thead><tr>
  <th scope="col">Model</th><th scope="col">Version</th><th scope="col">State</th><th scope="col">Provider</th>
  <th scope="col" class="number">Busy instances</th><th scope="col" class="number">Rows waiting</th>
  <th scope="col" class="number">Rows admitted</th><th scope="col" class="number">Bytes held</th>
  <th scope="col" class="number">Answered</th><th scope="col" class="number">Failed</th>
  <th scope="col">Batch times</th><th scope="col">Last failure</th>
</tr></thead>
<tbody>
"#;

/// Text that stays text, whatever is in it.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string().chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

impl Display for Used {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.used, self.limit)
    }
}

pub(super) fn render(debug: &Debug<'_>) -> String {
    let mut html = HEAD.to_owned();
    let build = &debug.build;
    let facts: [(&str, String); 11] = [
        ("Version", build.version.to_owned()),
        ("Commit", build.commit.unwrap_or("not told to the build").to_owned()),
        ("Compiler", format!("{}, {}", build.rustc, build.target)),
        ("ONNX Runtime", build.onnxruntime.to_owned()),
        ("Its library", build.onnxruntime_library.to_owned()),
        ("Up for", format!("{:.0} s", debug.uptime_s)),
        ("Ready", if debug.ready { "yes" } else { "no" }.to_owned()),
        ("HTTP connections", debug.connections.http.to_string()),
        ("gRPC connections", debug.connections.grpc.to_string()),
        ("Bytes of request bodies", debug.body_bytes.to_string()),
        ("Bytes of kept answers", debug.response_cache.as_ref().map_or("none are kept".to_owned(), Used::to_string)),
    ];
    html.push_str("<div class=\"scroll\"><table><tbody>\n");
    for (name, value) in facts {
        // Writing to a String does not fail.
        let _ = writeln!(html, "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", Text(value));
    }
    html.push_str("</tbody></table></div>\n");
    html.push_str(MODELS);
    for model in &debug.models {
        html.push_str(&row(model));
    }
    html.push_str("</tbody></table></div>\n<h2>Configuration</h2>\n<pre>");
    html.push_str(&Text(format!("{:#}", debug.config)).to_string());
    html.push_str("</pre>\n</main>\n</body>\n</html>\n");
    html
}

fn row(model: &ModelJson) -> String {
    let ModelJson { name, version, state, reason, requests, graph, members } = model;
    let state = if reason.is_empty() { (*state).to_owned() } else { format!("{state}: {reason}") };
    let graph = graph.as_ref();
    let of_graph = |show: &dyn Fn(&GraphJson) -> String| graph.map(show).unwrap_or_default();
    let provider = match members.as_slice() {
        [] => of_graph(&|graph| graph.provider.to_owned()),
        members => format!("ensemble of {}", members.join(", ")),
    };
    let requests = requests.as_ref().map_or(Default::default(), |it| (it.succeeded.to_string(), it.failed.to_string()));
    let times = of_graph(&|graph| {
        let times: Vec<_> = graph.batch_times.iter().map(|time| format!("{}: {:.2} ms", time.size, time.ms)).collect();
        times.join(", ")
    });
    let cells = [
        (name.clone(), false),
        (version.clone().unwrap_or_default(), false),
        (state, false),
        (provider, false),
        (of_graph(&|graph| format!("{} of {}", graph.instances.busy, graph.instances.count)), true),
        (of_graph(&|graph| graph.queue.rows.to_string()), true),
        (of_graph(&|graph| graph.queue.admitted_rows.to_string()), true),
        (of_graph(&|graph| graph.queue.bytes.to_string()), true),
        (requests.0, true),
        (requests.1, true),
        (times, false),
        (of_graph(&|graph| graph.last_failure.as_ref().map(failure).unwrap_or_default()), false),
    ];
    let cells = cells.map(|(text, is_number)| {
        let class = if is_number { " class=\"number\"" } else { "" };
        format!("<td{class}>{}</td>", Text(text))
    });
    format!("<tr>{}</tr>\n", cells.concat())
}

fn failure(failure: &Failure) -> String {
    format!("{:.0} s ago: {}", failure.ago_s, failure.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_never_becomes_markup() {
        assert_eq!(Text("<b a=\"1\" b='2'>&").to_string(), "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;");
    }
}
