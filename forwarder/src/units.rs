//! Quantities for people: bytes, counts a second, ages.

use std::time::Duration;

/// `1 flow`, `2 flows`.
pub fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// `1536` → `1.5 KiB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1_024.0 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1_024.0;
    }
    format!("{value:.1} TiB")
}

/// Bytes a second: `1.5 MiB/s`.
pub fn bandwidth(bytes_a_second: f64) -> String {
    format!("{}/s", bytes(bytes_a_second.round() as u64))
}

/// For narrow columns: `0`, `900`, `1.3K`, `12M`; powers of 1,024, at most four characters below 1,000 T.
pub fn short(count: f64) -> String {
    let (mut value, mut unit) = (count, "");
    for larger in ["K", "M", "G", "T"] {
        // What would be rounded to 1,000 belongs to the next unit.
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1_024.0, larger);
    }
    let digits = usize::from(!unit.is_empty() && value < 9.95);
    format!("{value:.digits$}{unit}")
}

/// Something a second: `0`, `0.4`, `12`.
pub fn rate(a_second: f64) -> String {
    if a_second == 0.0 {
        String::from("0")
    } else if a_second < 10.0 {
        format!("{a_second:.1}")
    } else {
        format!("{a_second:.0}")
    }
}

/// `45s`, `3m 12s`, `2h 5m`, `9d 4h`: at most two units.
pub fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{part}"),
    };
    if days > 0 {
        two(days, "d", hours % 24, "h")
    } else if hours > 0 {
        two(hours, "h", minutes % 60, "m")
    } else if minutes > 0 {
        two(minutes, "m", seconds % 60, "s")
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(count(1, "flow"), "1 flow");
        assert_eq!(count(0, "flow") + &count(2, "flow"), "0 flows2 flows");
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
        assert_eq!(bandwidth(1_536.4), "1.5 KiB/s");
    }

    #[test]
    fn short_ones_have_four_characters() {
        let words = [0.0, 999.4, 999.6, 1_331.0, 12.4e6, 1_023.0 * 1_024.0, 3e12].map(short);
        assert_eq!(words, ["0", "999", "1.0K", "1.3K", "12M", "1.0M", "2.7T"]);
    }

    #[test]
    fn rates_show_that_something_happens() {
        assert_eq!([0.0, 0.4, 9.94, 12.4].map(rate), ["0", "0.4", "9.9", "12"]);
    }

    #[test]
    fn ages_have_two_units() {
        let words = [0, 59, 60, 192, 7_500, 7_200, 90_000, 864_000]
            .map(|own| age(Duration::from_secs(own)));
        let expected = ["0s", "59s", "1m", "3m 12s", "2h 5m", "2h", "1d 1h", "10d"];
        assert_eq!(words, expected);
    }
}
