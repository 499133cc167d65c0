//! Lines that are written whole, or said not to be.

use std::io::{self, Write};

/// Why lines are missing.
#[derive(Debug)]
pub struct Unwritten {
    /// How many of them are.
    pub lines: u64,
    /// Why.
    pub source: io::Error,
}

impl Unwritten {
    /// All of `text` is missing.
    pub fn all(text: &[u8], source: io::Error) -> Self {
        Self {
            lines: ends(text),
            source,
        }
    }
}

/// A stream of lines. After a line that was written in part the next one begins on a line of its own, so that a
/// full disk costs the lines it has no room for, and no other.
#[derive(Debug, Default)]
pub struct Lines {
    torn: bool,
}

impl Lines {
    /// Writes `text`, which is whole lines.
    pub fn write(&mut self, to: &mut impl Write, text: &[u8]) -> Result<(), Unwritten> {
        if self.torn {
            match to.write(b"\n") {
                Ok(0) => return Err(Unwritten::all(text, io::ErrorKind::WriteZero.into())),
                Ok(_) => self.torn = false,
                Err(source) => return Err(Unwritten::all(text, source)),
            }
        }
        let mut rest = text;
        while !rest.is_empty() {
            let source = match to.write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let written = text.get(..text.len() - rest.len()).unwrap_or_default();
            self.torn = written.last().is_some_and(|last| *last != b'\n');
            return Err(Unwritten::all(rest, source));
        }
        // What a stream holds back would be lost with the process.
        to.flush().map_err(|source| Unwritten { lines: 0, source })
    }
}

fn ends(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so much room.
    struct Disk {
        room: usize,
        bytes: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let fits = text.len().min(self.room);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= fits;
            self.bytes.extend_from_slice(&text[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_only_the_lines_it_has_no_room_for() {
        let mut disk = Disk {
            room: 10,
            bytes: Vec::new(),
        };
        let mut lines = Lines::default();
        let error = lines.write(&mut disk, b"first\nsecond\nthird\n");
        assert_eq!(error.unwrap_err().lines, 2);
        assert_eq!(lines.write(&mut disk, b"fourth\n").unwrap_err().lines, 1);
        disk.room = 100;
        lines.write(&mut disk, b"fifth\n").unwrap();
        assert_eq!(disk.bytes, b"first\nseco\nfifth\n");
    }

    #[test]
    fn a_disk_that_is_full_at_the_end_of_a_line_tears_nothing() {
        let mut disk = Disk {
            room: 6,
            bytes: Vec::new(),
        };
        let mut lines = Lines::default();
        let error = lines.write(&mut disk, b"first\nsecond\n");
        assert_eq!(error.unwrap_err().lines, 1);
        disk.room = 100;
        lines.write(&mut disk, b"third\n").unwrap();
        assert_eq!(disk.bytes, b"first\nthird\n");
    }
}
