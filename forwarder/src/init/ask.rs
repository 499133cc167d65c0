//! Questions on a terminal: one line each, with the default in brackets; what cannot be used is said, and asked
//! again.

use std::io::{BufRead, Write};

use super::answers::InitError;

/// Where questions go to, and answers come from.
pub struct Terminal<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
}

impl<'a> Terminal<'a> {
    /// Asks on `output` and reads from `input`.
    pub fn new(input: &'a mut dyn BufRead, output: &'a mut dyn Write) -> Self {
        Self { input, output }
    }

    /// Asks until `judge` takes the answer. An empty line is the default, where there is one.
    pub fn ask<T>(
        &mut self,
        question: &str,
        default: Option<&str>,
        judge: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, InitError> {
        let failed = |error| InitError::Unanswered(Some(error));
        loop {
            let offer = default.map_or(String::new(), |default| format!(" [{default}]"));
            write!(self.output, "{question}{offer}: ").map_err(failed)?;
            self.output.flush().map_err(failed)?;
            let mut line = String::new();
            if self.input.read_line(&mut line).map_err(failed)? == 0 {
                return Err(InitError::Unanswered(None));
            }
            let answer = match (line.trim(), default) {
                ("", Some(default)) => default,
                (answer, _) => answer,
            };
            match judge(answer) {
                Ok(value) => return Ok(value),
                Err(why) => writeln!(self.output, "  {why}").map_err(failed)?,
            }
        }
    }
}
