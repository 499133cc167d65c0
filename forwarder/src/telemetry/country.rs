//! A country, as ISO 3166-1 writes it in two letters.

use std::fmt;

use serde::{Serialize, Serializer};

/// How many two-letter codes there can be.
pub const CODES: usize = 26 * 26;

/// Two letters, `A` to `Z`. Nothing else is ever a country, so that a label made of it is bounded whatever a
/// database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// The country of a code, upper or lower case; `None` if it is not two letters.
    pub fn from_code(code: &str) -> Option<Self> {
        let letters: [u8; 2] = code.as_bytes().try_into().ok()?;
        let fits = letters.iter().all(u8::is_ascii_alphabetic);
        fits.then(|| Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }

    /// The code at a place below [`CODES`], in the order of the alphabet.
    pub(crate) fn at(index: usize) -> Self {
        let letter = |number: usize| b'A' + (number % 26) as u8;
        Self([letter(index / 26), letter(index)])
    }

    /// Its place among all codes, below [`CODES`].
    pub(crate) fn index(self) -> usize {
        let [first, second] = self.0.map(|letter| usize::from(letter - b'A'));
        first * 26 + second
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.0.map(char::from);
        write!(f, "{first}{second}")
    }
}

impl Serialize for Country {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_letters_and_nothing_else() {
        assert_eq!(Country::from_code("de").unwrap().to_string(), "DE");
        for wrong in ["", "D", "DEU", "D1", "D\"", "é", "--"] {
            assert_eq!(Country::from_code(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_code_has_its_place() {
        for index in 0..CODES {
            let country = Country::at(index);
            assert_eq!(country.index(), index);
            assert_eq!(Country::from_code(&country.to_string()), Some(country));
        }
    }
}
