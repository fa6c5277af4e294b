//! Reads EDN as Clojure prints it, which is more than the EDN specification allows: `##NaN`,
//! regular expressions, vars, octal escapes, the same key twice. Readers on crates.io refuse some of
//! these, and a report must not fail for one odd value in a checker's results. So this one never
//! refuses a form that ends: what it does not know is its text.

use serde_json::{Map, Number, Value};
use std::borrow::Cow;

/// Forms nested deeper than this become their text.
const MAX_DEPTH: usize = 200;

/// Steps over forms, without looking into them more than it takes to find where they end.
#[derive(Clone)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Reader<'a> {
        Reader { text, at: 0 }
    }

    /// Where the next form begins, in bytes.
    pub fn position(&mut self) -> usize {
        self.skip_blanks();
        self.at
    }

    /// The text of the next form, with its tag and metadata; None at the end, at a closing bracket,
    /// and where a form does not end.
    pub fn form(&mut self) -> Option<&'a str> {
        self.skip_blanks();
        let start = self.at;
        self.skip_form()?;
        Some(&self.text[start..self.at])
    }

    /// Steps into a collection, over its tag if it has one. None where there is no collection; then
    /// this stays where it was.
    pub fn enter(&mut self) -> Option<u8> {
        self.skip_blanks();
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'#') if self.peek_at(1) == Some(b'{') => {
                    self.at += 2;
                    return Some(b'#');
                }
                Some(b'#') if self.peek_at(1).is_some_and(is_symbol) => {
                    self.at += 1;
                    self.skip_symbol();
                    self.skip_blanks();
                }
                Some(opening @ (b'{' | b'[' | b'(')) => {
                    self.at += 1;
                    return Some(opening);
                }
                _ => {
                    self.at = start;
                    return None;
                }
            }
        }
    }

    /// Steps over a closing bracket, if the next thing is one.
    pub fn leave(&mut self) -> bool {
        self.skip_blanks();
        let closes = matches!(self.peek(), Some(b'}' | b']' | b')'));
        self.at += usize::from(closes);
        closes
    }

    fn peek(&self) -> Option<u8> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// White space, comments and discarded forms.
    fn skip_blanks(&mut self) {
        loop {
            self.skip_white();
            if self.peek() != Some(b'#') || self.peek_at(1) != Some(b'_') {
                return;
            }
            self.at += 2;
            if self.skip_form().is_none() {
                return;
            }
        }
    }

    fn skip_white(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b',' | 0x0c => self.at += 1,
                b';' => self.skip_line(),
                _ => return,
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.find('\n').unwrap_or(rest.len());
    }

    fn skip_form(&mut self) -> Option<()> {
        // Counted rather than recursed into: a value may be nested deeper than any stack.
        let mut open = 0usize;
        let mut wanted = 1usize;
        loop {
            self.skip_white();
            match self.peek()? {
                b'{' | b'[' | b'(' => {
                    self.at += 1;
                    open += 1;
                    continue;
                }
                b'}' | b']' | b')' => {
                    if open == 0 {
                        return None;
                    }
                    self.at += 1;
                    open -= 1;
                }
                b'"' => self.skip_string()?,
                b'\\' => self.skip_character(),
                b'^' => {
                    self.at += 1;
                    wanted += usize::from(open == 0);
                    continue; // Metadata; what it is about follows.
                }
                b'\'' | b'@' | b'`' | b'~' => {
                    self.at += 1;
                    continue;
                }
                b'#' => match self.peek_at(1)? {
                    b'{' | b'(' | b'"' | b'\'' => {
                        self.at += 1;
                        continue;
                    }
                    b'_' => {
                        self.at += 2;
                        wanted += usize::from(open == 0);
                        continue;
                    }
                    b'#' => {
                        self.at += 2;
                        self.skip_symbol();
                    }
                    b'<' => self.skip_unreadable()?,
                    _ => {
                        self.at += 1;
                        self.skip_symbol();
                        continue; // A tag; its value follows.
                    }
                },
                _ => self.skip_symbol(),
            }
            if open == 0 {
                wanted -= 1;
                if wanted == 0 {
                    return Some(());
                }
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => {
                    self.at += 1;
                    self.skip_char();
                }
                _ => self.at += 1,
            }
        }
    }

    fn skip_character(&mut self) {
        self.at += 1;
        self.skip_char();
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            self.at += 1;
        }
    }

    /// `#<Object …>`, as old Clojure printed what cannot be read.
    fn skip_unreadable(&mut self) -> Option<()> {
        self.at += self.text[self.at..].find('>')? + 1;
        Some(())
    }

    fn skip_symbol(&mut self) {
        let start = self.at;
        while self.peek().is_some_and(is_symbol) {
            self.at += 1;
        }
        if self.at == start {
            self.skip_char();
        }
    }

    fn skip_char(&mut self) {
        self.at += self.text[self.at..]
            .chars()
            .next()
            .map_or(0, char::len_utf8);
    }
}

fn is_symbol(byte: u8) -> bool {
    !matches!(
        byte,
        b' ' | b'\t'
            | b'\n'
            | b'\r'
            | 0x0c
            | b','
            | b';'
            | b'"'
            | b'{'
            | b'}'
            | b'['
            | b']'
            | b'('
            | b')'
    )
}

/// One form as JSON: keywords and symbols are strings, keywords without their colon; sets, vectors and lists are
/// arrays; a tagged value is its value; keys of maps are strings. None where the text does not begin with a whole form.
pub fn to_json(text: &str) -> Option<Value> {
    let mut reader = Reader::new(text);
    value(&mut reader, MAX_DEPTH)
}

fn value(reader: &mut Reader, depth: usize) -> Option<Value> {
    let mut inside = reader.clone();
    let opening = if depth == 0 { None } else { inside.enter() };
    let Some(opening) = opening else {
        return reader.form().map(atom);
    };
    *reader = inside;
    let mut items = Vec::new();
    while !reader.leave() {
        items.push(value(reader, depth - 1)?);
    }
    if opening != b'{' {
        return Some(Value::Array(items));
    }
    let mut map = Map::new();
    let mut items = items.into_iter();
    while let (Some(key), Some(item)) = (items.next(), items.next()) {
        let key = match key {
            Value::String(key) => key,
            other => other.to_string(),
        };
        map.insert(key, item);
    }
    Some(Value::Object(map))
}

fn atom(form: &str) -> Value {
    match form {
        "nil" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if form.starts_with('"') => Value::String(string(form).into_owned()),
        _ if form.starts_with('#') && !form[1..].starts_with(['#', '"', '\'', '<']) => {
            // A tag and a scalar: #inst "2026-…".
            let mut inside = Reader::new(form);
            inside.at = 1;
            inside.skip_symbol();
            match inside.form() {
                Some(inner) if inner.len() < form.len() => atom(inner),
                _ => Value::String(form.to_string()),
            }
        }
        _ => match integer(form) {
            Some(number) => Value::from(number),
            None => form
                .parse()
                .ok()
                .filter(|_| !form.starts_with(|c: char| c.is_alphabetic()))
                .and_then(Number::from_f64)
                .map_or_else(|| Value::String(name(form).to_string()), Value::Number),
        },
    }
}

/// A keyword's name; anything else is left as it is.
pub fn name(form: &str) -> &str {
    form.strip_prefix(':').unwrap_or(form)
}

/// An integer, with Clojure's `N` for big ones, if it fits.
pub fn integer(form: &str) -> Option<i64> {
    form.strip_suffix('N').unwrap_or(form).parse().ok()
}

/// The string that a literal stands for.
pub fn string(literal: &str) -> Cow<'_, str> {
    let inner = literal.strip_prefix('"').unwrap_or(literal);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = rest.clone().take(4).collect();
                match u32::from_str_radix(&digits, 16) {
                    Ok(code) if digits.len() == 4 => {
                        rest.nth(3);
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    _ => out.push_str("\\u"),
                }
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_clojure_prints_is_read() {
        for (text, expected) in [
            ("nil", json!(null)),
            ("{:valid? false, :n 3}", json!({"valid?": false, "n": 3})),
            (
                "#jepsen.history.Op{:index 0, :f :r}",
                json!({"index": 0, "f": "r"}),
            ),
            ("#{1 2}", json!([1, 2])),
            ("#{1 1}", json!([1, 1])),
            ("{:a 1 :a 2}", json!({"a": 2})),
            ("(1 [2 ()])", json!([1, [2, []]])),
            ("{[1 2] 3, nil 1}", json!({"[1,2]": 3, "null": 1})),
            ("5N", json!(5)),
            (
                "123456789012345678901234567890N",
                json!("123456789012345678901234567890N"),
            ),
            ("1.5", json!(1.5)),
            ("1.5M", json!("1.5M")),
            ("22/7", json!("22/7")),
            ("[##NaN ##-Inf]", json!(["##NaN", "##-Inf"])),
            (
                "#object[clojure.core$fn 0x1f \"x\"]",
                json!(["clojure.core$fn", "0x1f", "x"]),
            ),
            ("#inst \"2026-01-01\"", json!("2026-01-01")),
            ("[#\"a\\\"b\" 2]", json!(["#\"a\\\"b\"", 2])),
            ("#'user/x", json!("#'user/x")),
            ("[^{:line 1} [1] 2]", json!(["^{:line 1} [1]", 2])),
            (
                "[\\a \\newline \\] \\u0041]",
                json!(["\\a", "\\newline", "\\]", "\\u0041"]),
            ),
            (r#""a\u00e9\n\"\\""#, json!("aé\n\"\\")),
            ("[1 #_ 2 #_[3 4] 5 ; six\n 7]", json!([1, 5, 7])),
            ("#<Object@1 x> ", json!("#<Object@1 x>")),
            ("[:inf nan]", json!(["inf", "nan"])),
        ] {
            assert_eq!(to_json(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_does_not_end_is_no_form() {
        for text in [
            "",
            "[1 2",
            "{:a \"x",
            "#jepsen.history.Op{:index 1",
            "#_",
            "^",
            "}",
            "#",
        ] {
            assert_eq!(to_json(text), None, "{text}");
        }
    }

    #[test]
    fn forms_follow_each_other() {
        let mut reader = Reader::new("{:a [1]} {:b \"}\"} 3");
        assert_eq!(reader.form(), Some("{:a [1]}"));
        assert_eq!(reader.form(), Some("{:b \"}\"}"));
        assert_eq!(reader.form(), Some("3"));
        assert_eq!(reader.form(), None);
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert!(to_json(&deep).is_some());
        assert_eq!(Reader::new(&deep).form(), Some(&*deep));
        for prefix in ["^", "#_", "#_ [", "'", "#x "] {
            assert_eq!(
                Reader::new(&prefix.repeat(1_000_000)).form(),
                None,
                "{prefix}"
            );
        }
    }
}
