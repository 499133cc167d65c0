//! Very long lists of names, read beside the TOML parser, which takes half a microsecond and a hundred bytes for each.
//!
//! A list that is written plainly (quoted names without escapes, commas, comments) is read here, and the parser gets
//! blanks in its place, so that all else keeps its place. Whether what looks like `names = [` is that key, and not
//! part of a text or a comment, the parser tells: it must find an empty list of names at that very place. Unless it
//! finds all of them, and nothing wrong anywhere, everything is read again by the parser alone.

use std::borrow::Cow;
use std::collections::HashMap;

use super::model::Pattern;
use super::raw::{Placed, RawConfig};
use super::sources::Sources;

/// Shorter lists are left to the parser.
const LEAST: usize = 1_000;
/// The key whose lists are read.
const KEY: &str = "names";

/// What was read of all files.
pub struct LongLists<'a> {
    /// The texts, blanks in place of the lists.
    pub texts: Vec<Cow<'a, str>>,
    /// The lists by their places, brackets included.
    lists: HashMap<(usize, usize), Vec<Placed>>,
}

impl<'a> LongLists<'a> {
    /// Those of all files; `None` if there are none.
    pub fn read(sources: &'a Sources) -> Option<Self> {
        let mut own = Self {
            texts: Vec::new(),
            lists: HashMap::new(),
        };
        for source in sources.files() {
            let text = own.blank(&source.text, source.base());
            own.texts.push(text);
        }
        (!own.lists.is_empty()).then_some(own)
    }

    /// Puts the names where the parser found their lists. Says whether it found all.
    pub fn enter(mut self, raw: &mut RawConfig) -> bool {
        for route in &mut raw.route {
            let route = route.get_mut();
            if let Some(list) = &route.names
                && list.get_ref().is_empty()
                && let Some(names) = self.lists.remove(&(list.span().start, list.span().end))
            {
                route.long_names = names;
            }
        }
        self.lists.is_empty()
    }

    fn blank(&mut self, text: &'a str, base: usize) -> Cow<'a, str> {
        let mut blanked = String::new();
        let mut copied = 0;
        let mut at = 0;
        while let Some(found) = text[at..].find(KEY) {
            at += found + KEY.len();
            let Some(open) = list_after(text, at) else {
                continue;
            };
            let Some((names, close)) = list(text, open, base) else {
                continue;
            };
            at = close;
            if names.len() < LEAST {
                continue;
            }
            self.lists.insert((base + open, base + close + 1), names);
            blanked.push_str(&text[copied..=open]);
            blanked.extend(std::iter::repeat_n(' ', close - open - 1));
            copied = close;
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        blanked.push_str(&text[copied..]);
        Cow::Owned(blanked)
    }
}

/// Where the bracket of a list opens, if a key that ends at `at` begins its line and has one.
fn list_after(text: &str, at: usize) -> Option<usize> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut before = text.as_bytes()[..at - KEY.len()].iter().rev();
    let begins = before.find(|byte| !is_blank(byte));
    if begins.is_some_and(|byte| *byte != b'\n') {
        return None;
    }
    let after = text.as_bytes()[at..].iter().copied().enumerate();
    let mut after = after.filter(|(_, byte)| !is_blank(byte));
    let equals = after.next()?;
    let open = after.next()?;
    (equals.1 == b'=' && open.1 == b'[').then_some(at + open.0)
}

/// The names of the list that opens at `open`, and where it closes; `None` if it is not written plainly.
fn list(text: &str, open: usize, base: usize) -> Option<(Vec<Placed>, usize)> {
    let bytes = text.as_bytes();
    let mut names = Vec::new();
    let mut at = past_blanks(bytes, open + 1)?;
    loop {
        let quote = *bytes.get(at)?;
        if quote == b']' {
            return Some((names, at));
        }
        if !matches!(quote, b'"' | b'\'') {
            return None;
        }
        let rest = &bytes[at + 1..];
        // A name is not so long, nor does it go over the end of a line.
        let len = rest.iter().take(256).position(|byte| *byte == quote)?;
        let end = at + 1 + len;
        let pattern = Pattern::parse(&text[at + 1..end]).ok()?;
        names.push((Some(pattern), base + at..base + end + 1));
        at = past_blanks(bytes, end + 1)?;
        match *bytes.get(at)? {
            b',' => at = past_blanks(bytes, at + 1)?,
            b']' => {}
            _ => return None,
        }
    }
}

/// Past blanks, ends of lines and comments.
fn past_blanks(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match bytes.get(at)? {
            b' ' | b'\t' | b'\n' => at += 1,
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => at += 2,
            b'#' => {
                let comment = bytes[at..].iter().take_while(|byte| **byte != b'\n');
                let is_odd = |byte: &&u8| byte.is_ascii_control() && **byte != b'\t';
                if comment.clone().any(|byte| is_odd(&byte)) {
                    return None;
                }
                at += comment.count();
            }
            _ => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::shape;
    use super::*;

    /// A route of very many names in the way of `each`, after `before` and before `after`.
    fn route(before: &str, each: impl Fn(usize) -> String, after: &str) -> String {
        let names: String = (0..LEAST).map(each).collect();
        format!("{before}[[route]]\npool = 'k3s'\nnames = [{names}\n]\n{after}")
    }

    /// How many names of the last route were read here and by the parser.
    fn read(text: &str) -> (usize, usize) {
        let sources = Sources::new(Path::new("test.toml"), text);
        let shape = shape::read(&sources);
        let Some(route) = shape.raw.route.last() else {
            return (0, 0);
        };
        let route = route.get_ref();
        for (name, span) in &route.long_names {
            let said = text[span.clone()].trim_matches(['"', '\'']);
            let name = name.as_ref().map(Pattern::as_str);
            assert_eq!(Some(said.to_lowercase().as_str()), name);
        }
        let listed = route.names.as_ref().map_or(0, |own| own.get_ref().len());
        (route.long_names.len(), listed)
    }

    #[test]
    fn plain_lists_are_read_here() {
        let line = |at| format!("\n  \"n{at}.example.org\", # number {at}");
        assert_eq!(read(&route("", line, "")), (LEAST, 0));
        let row = |at| format!("'*.N{at}.example.org' ,\r\n");
        assert_eq!(
            read(&route("title = 1\n", row, "")),
            (0, LEAST),
            "an unknown key"
        );
        assert_eq!(read(&route("# names = [\n", row, "")), (LEAST, 0));
        assert_eq!(
            read(&route("\n", row, "[metrics]\nlisten = 'x'\n")),
            (LEAST, 0)
        );
    }

    #[test]
    fn all_else_is_left_to_the_parser() {
        let line = |at| format!("\n  \"n{at}.example.org\",");
        let text = route("", line, "");
        assert_eq!(
            read(&text.replace("n7.", "\\u006e7.")),
            (0, LEAST),
            "an escape"
        );
        assert_eq!(
            read(&text.replace("n7.", "n7..")),
            (0, LEAST),
            "a wrong name"
        );
        assert_eq!(
            read(&text.replace("\"n7.example.org\"", "7")),
            (0, LEAST - 1),
            "a number"
        );
        assert_eq!(
            read(&text.replace("\"n7.example.org\",", "\"n7.example.org\"")),
            (0, 0),
            "a comma too few"
        );
        let short = "[[route]]\npool = 'k3s'\nnames = ['a.example.org']\n";
        assert_eq!(read(short), (0, 1));
        // What looks like a list may be part of a text.
        let text = format!("[flow_log]\nto = \"\"\"{text}\"\"\"\n{short}");
        assert_eq!(read(&text), (0, 1));
        assert_eq!(read(&text.replace('"', "'")), (0, 1));
    }
}
