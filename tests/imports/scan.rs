//! Finds the paths that a Rust source file writes out, and what each of them imports.

use std::collections::BTreeSet;

/// What a path reaches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Import {
    /// A top-level module of this crate.
    Module(String),
    /// The first segment of any other path: a crate, or a local name, which the rules simply do not mention.
    Crate(String),
}

/// All that `source`, the file of `module`, imports.
pub(crate) fn imports(source: &str, module: &[String]) -> BTreeSet<Import> {
    let tokens = tokens(&without_comments_and_literals(source));
    let mut found = BTreeSet::new();
    // The module that the token at hand is in, and at which brace depth each inline module began.
    let mut current = module.to_vec();
    let mut inline_depths = Vec::new();
    let mut depth = 0usize;
    let mut index = 0;
    while index < tokens.len() {
        let token = tokens[index].as_str();
        let after = |offset: usize| tokens.get(index + offset).map(String::as_str);
        match token {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if inline_depths.last() == Some(&depth) {
                    inline_depths.pop();
                    current.pop();
                }
            }
            "mod" if after(2) == Some("{") => {
                current.push(tokens[index + 1].clone());
                inline_depths.push(depth);
                index += 2;
                depth += 1;
            }
            // `impl Trait + use<'a>` imports nothing.
            "use" if after(1) != Some("<") => {
                index += 1;
                for path in use_tree(&tokens, &mut index, &[]) {
                    found.extend(resolve(&path, &current));
                }
                continue;
            }
            // A path in code: it begins with a name that does not itself follow `::` and goes on with one.
            name if is_name(name) && after(1) == Some("::") && (index == 0 || tokens[index - 1] != "::") => {
                let mut path = vec![name.to_string()];
                while tokens.get(index + 1).is_some_and(|next| next == "::") {
                    match tokens.get(index + 2) {
                        Some(next) if is_name(next) => path.push(next.clone()),
                        _ => break,
                    }
                    index += 2;
                }
                found.extend(resolve(&path, &current));
            }
            _ => {}
        }
        index += 1;
    }
    found
}

/// The paths of the `use` tree that begins at `index`, which is moved behind it.
fn use_tree(tokens: &[String], index: &mut usize, prefix: &[String]) -> Vec<Vec<String>> {
    let mut path = prefix.to_vec();
    let mut paths = Vec::new();
    while let Some(token) = tokens.get(*index) {
        match token.as_str() {
            "{" => {
                *index += 1;
                while tokens.get(*index).is_some_and(|token| token != "}") {
                    paths.extend(use_tree(tokens, index, &path));
                    if tokens.get(*index).is_some_and(|token| token == ",") {
                        *index += 1;
                    }
                }
                *index += 1;
                return paths;
            }
            "," | ";" | "}" => break,
            "as" => *index += 1,
            "::" | "*" => {}
            name => path.push(name.to_string()),
        }
        *index += 1;
    }
    paths.push(path);
    paths
}

/// What a path written in `module` reaches.
fn resolve(path: &[String], module: &[String]) -> Option<Import> {
    let mut base: Vec<&str> = module.iter().map(String::as_str).collect();
    let mut rest = path.iter().map(String::as_str).peekable();
    match *rest.peek()? {
        "crate" => {
            base.clear();
            rest.next();
        }
        "self" => {
            rest.next();
        }
        "super" => {}
        name => return Some(Import::Crate(name.to_string())),
    }
    while rest.next_if_eq(&"super").is_some() {
        base.pop();
    }
    base.extend(rest);
    base.first().map(|top| Import::Module((*top).to_string()))
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Names, `::`, and single characters of everything else.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        let length = if is_part(first) {
            rest.find(|character| !is_part(character)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(rest[..length].to_string());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The source with comments, strings and character literals blanked out.
fn without_comments_and_literals(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| string(rest, &code)).or_else(|| character(rest));
        if let Some(length) = skipped {
            code.push(' ');
            rest = &rest[length..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// The length of the comment that `text` begins with. Block comments nest.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(text.len())
}

/// The length of the string literal, plain or raw, that `text` begins with. `before` is the code so far: an `r` that ends a
/// longer name begins no raw string.
fn string(text: &str, before: &str) -> Option<usize> {
    if let Some(body) = text.strip_prefix('"') {
        let mut escaped = false;
        for (at, character) in body.char_indices() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Some(at + 2),
                _ => {}
            }
        }
        return Some(text.len());
    }
    let in_a_name = before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    let is_byte_or_c = before.ends_with('b') || before.ends_with('c');
    let opening = text.strip_prefix('r')?;
    let hashes = opening.len() - opening.trim_start_matches('#').len();
    let body = opening[hashes..].strip_prefix('"').filter(|_| !in_a_name || is_byte_or_c)?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + length)
}

/// The length of the character literal that `text` begins with; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if body.starts_with('\\') {
        // The quote in `'\''` is the escaped character itself.
        return body[2..].find('\'').map(|at| at + 4);
    }
    let first = body.chars().next()?;
    body[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The imports of `source` in the file of `http::v2`, as text.
    fn scanned(source: &str) -> Vec<String> {
        let module = ["http".to_string(), "v2".to_string()];
        imports(source, &module)
            .into_iter()
            .map(|import| match import {
                Import::Module(name) => format!("crate::{name}"),
                Import::Crate(name) => name,
            })
            .collect()
    }

    #[test]
    fn use_trees_are_unfolded() {
        assert_eq!(
            scanned("use crate::{engine::{Session, self}, tensor::Tensor as T, error::*};\nuse ::ort::{a, b};"),
            ["crate::engine", "crate::error", "crate::tensor", "ort"]
        );
        assert_eq!(scanned("pub(crate) use axum::{Router,\n    routing::get};"), ["axum"]);
    }

    #[test]
    fn paths_in_code_are_found() {
        assert_eq!(
            scanned("fn f() -> crate::error::Result<()> { let x: Vec<ort::Value> = tokio::spawn(local::<u8>()); }"),
            ["crate::error", "local", "ort", "tokio"]
        );
        assert_eq!(scanned("fn f() -> impl Fn() + use<'_> { crate::engine::run() }"), ["crate::engine"]);
        assert_eq!(scanned("#[tokio::test] async fn f() {}"), ["tokio"]);
    }

    #[test]
    fn super_and_self_are_resolved_and_inline_modules_counted() {
        assert_eq!(scanned("use super::error;"), ["crate::http"]);
        assert_eq!(scanned("use super::super::grpc::status;"), ["crate::grpc"]);
        assert_eq!(scanned("use self::x::y;"), ["crate::http"]);
        assert_eq!(scanned("mod tests { use super::*; fn f() { { super::super::x() } } }"), ["crate::http"]);
        assert_eq!(
            scanned("mod tests { use super::super::super::grpc; }\nuse super::super::engine;"),
            ["crate::engine", "crate::grpc"]
        );
    }

    #[test]
    fn comments_and_literals_say_nothing() {
        let nothing: [&str; 0] = [];
        assert_eq!(
            scanned("// use crate::engine;\n//! [`crate::engine`]\n/* a /* crate::b::c */ crate::d */"),
            nothing
        );
        assert_eq!(
            scanned(r##"let s = "crate::a \" crate::b"; let r = r#"crate::c " crate::d"#; let b = br"ort::x";"##),
            nothing
        );
        assert_eq!(scanned(r#"let quote = '\''; let other = '\\'; let string = '"'; let x: &'a str = y;"#), nothing);
        assert_eq!(scanned("let q = '\"'; crate::engine::run(); let s = \"\";"), ["crate::engine"]);
        assert_eq!(scanned("fn f<'a>(x: &'a crate::tensor::Tensor) -> &'a str { x }"), ["crate::tensor"]);
    }
}
