//! What serde and the standard library say of wrong input, in the words of who wrote it rather than of Rust.

/// Each line of `said`, in which types of Rust are called what JSON, TOML and query strings have.
pub(crate) fn in_words(said: &(impl ToString + ?Sized)) -> String {
    said.to_string().lines().map(line_in_words).collect::<Vec<_>>().join("\n")
}

fn line_in_words(said: &str) -> String {
    let said = said.replace("invalid digit found in string", "it is not a whole number");
    let said = said
        .replace("invalid type: sequence", "invalid type: list")
        .replace("invalid type: map", "invalid type: object");
    let Some((before, behind)) = said.rsplit_once(", expected ") else { return said };
    let (expected, place) = behind.split_at(behind.find(" at line ").unwrap_or(behind.len()));
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        other => other,
    };
    format!("{before}, expected {expected}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_that_users_know() {
        for (said, words) in [
            (
                "invalid type: string \"a\", expected u32 at line 2 column 8",
                "invalid type: string \"a\", expected a whole number that is not negative at line 2 column 8",
            ),
            (
                "TOML parse error at line 1, column 9\n  |\ninvalid value: integer `-1`, expected usize\n",
                "TOML parse error at line 1, column 9\n  |\ninvalid value: integer `-1`, expected a whole number that is not negative",
            ),
            (
                "invalid type: sequence, expected a map at line 1 column 0",
                "invalid type: list, expected an object at line 1 column 0",
            ),
            ("unknown variant `x`, expected `a` or `b`", "unknown variant `x`, expected `a` or `b`"),
            ("top_k: invalid digit found in string", "top_k: it is not a whole number"),
            ("missing field `inputs` at line 1 column 2", "missing field `inputs` at line 1 column 2"),
        ] {
            assert_eq!(in_words(said), words);
        }
    }
}
