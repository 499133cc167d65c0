//! The commands of a document, to be followed word for word.
//!
//! A fenced block says in its first line what it is and where it is for: ` ```sh vps `. A person reads the place
//! in the sentence above; what a person would fill in stands in angle brackets with words between them.

use std::path::Path;

use crate::error::{Context, Error, Result};

/// One fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The words of its first line: language, then place, then anything else.
    pub words: Vec<String>,
    /// What is in it.
    pub text: String,
    /// Where it begins, from 1.
    pub line: usize,
}

impl Block {
    /// Where its commands are to be run; `None` if it is not for a shell.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        (self.words.first()? == "sh").then(|| self.words.get(1).map_or("", String::as_str))
    }

    /// Whether its commands are meant to fail.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.words.iter().any(|word| word == "fails")
    }

    /// The commands with everything filled in.
    pub fn filled(&self, values: &[(&str, &str)]) -> Result<String> {
        let text = values
            .iter()
            .fold(self.text.clone(), |text, (name, value)| {
                text.replace(&format!("<{name}>"), value)
            });
        match placeholder(&text) {
            None => Ok(text),
            Some(name) => Err(Error::Unintelligible {
                what: format!("`<{name}>` in the block at line {}", self.line),
                text,
            }),
        }
    }
}

/// What is still in angle brackets: words, not a redirection.
fn placeholder(text: &str) -> Option<&str> {
    text.split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>'))
        .map(|(name, _)| name)
        .find(|name| {
            name.starts_with(char::is_alphabetic)
                && name.contains(' ')
                && !name.ends_with(' ')
                && !name.contains('\n')
        })
}

/// The blocks of a file below `docs/`.
pub fn blocks(file: &str) -> Result<Vec<Block>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join("docs").join(file);
    let text = std::fs::read_to_string(&path).context(|| format!("reading {}", path.display()))?;
    Ok(fenced(&text))
}

fn fenced(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(words)) => {
                let block = Block {
                    words: words.split_whitespace().map(str::to_owned).collect(),
                    text: String::new(),
                    line: number + 1,
                };
                open = Some((block, indent));
            }
            (Some(_), Some("")) => blocks.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), _) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Do:\n\n   ```sh vps fails\n   cat <<EOF >x\n     <the name>\n   EOF\n   ```\n\n```toml\na = 1\n```\n";

    #[test]
    fn blocks_are_found_with_their_places() {
        let found = fenced(TEXT);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].place(), Some("vps"));
        assert!(found[0].fails());
        assert_eq!(found[0].text, "cat <<EOF >x\n  <the name>\nEOF\n");
        assert_eq!((found[1].place(), found[1].line), (None, 9));
    }

    #[test]
    fn what_is_not_filled_in_is_told() {
        let block = &fenced(TEXT)[0];
        assert!(
            block
                .filled(&[])
                .unwrap_err()
                .to_string()
                .contains("the name")
        );
        let filled = block.filled(&[("the name", "me")]).unwrap();
        assert_eq!(filled, "cat <<EOF >x\n  me\nEOF\n");
    }
}
