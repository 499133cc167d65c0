//! Bar charts as SVG: contenders down the side, one bar each, a whisker from the least to the greatest.

use plotters::prelude::*;

use crate::error::{Error, Result};

use super::statistics::Spread;

const WIDTH: u32 = 760;
const BAR: u32 = 26;
const MARGIN: u32 = 84;
const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb5);
const THEIRS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What stands before it.
    pub label: String,
    /// Its length and whisker.
    pub spread: Spread,
    /// Whether it is this project's.
    pub ours: bool,
}

/// A chart as SVG text.
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> Result<String> {
    let mut text = String::new();
    draw(&mut text, title, unit, bars).map_err(|reason| Error::Unintelligible {
        what: format!("the chart `{title}`"),
        text: reason,
    })?;
    Ok(text)
}

fn draw(text: &mut String, title: &str, unit: &str, bars: &[Bar]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let count = u32::try_from(bars.len()).unwrap_or(1).max(1);
    let most = bars.iter().map(|bar| bar.spread.most).fold(0.0, f64::max);
    let least = bars.iter().map(|bar| bar.spread.least).fold(0.0, f64::min);
    let room = SVGBackend::with_string(text, (WIDTH, MARGIN + BAR * count)).into_drawing_area();
    room.fill(&PAPER).map_err(|error| failed(&error))?;
    let words = ("sans-serif", 13).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&room)
        .caption(title, ("sans-serif", 15).into_font().color(&INK))
        .margin(8)
        .margin_right(70)
        .x_label_area_size(34)
        .y_label_area_size(128)
        .build_cartesian_2d(
            least * 1.1..most.max(f64::MIN_POSITIVE) * 1.1,
            (0..count).into_segmented(),
        )
        .map_err(|error| failed(&error))?;
    let label = |at: &SegmentValue<u32>| match at {
        SegmentValue::CenterOf(row) => {
            let bar = count
                .checked_sub(1 + row)
                .and_then(|index| bars.get(index as usize));
            bar.map(|bar| bar.label.clone()).unwrap_or_default()
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.12))
        .axis_style(INK.mix(0.4))
        .x_desc(unit)
        .x_labels(8)
        .y_labels(bars.len())
        .y_label_formatter(&label)
        .label_style(words.clone())
        .draw()
        .map_err(|error| failed(&error))?;
    for (row, bar) in (0..count).rev().zip(bars) {
        let (from, to) = (SegmentValue::Exact(row), SegmentValue::Exact(row + 1));
        let color = if bar.ours { OURS } else { THEIRS };
        let mut shape = Rectangle::new([(0.0, from), (bar.spread.median, to)], color.filled());
        shape.set_margin(5, 5, 0, 0);
        let middle = SegmentValue::CenterOf(row);
        let whisker = PathElement::new(
            vec![
                (bar.spread.least, middle.clone()),
                (bar.spread.most, middle.clone()),
            ],
            INK.stroke_width(1),
        );
        let number = EmptyElement::at((bar.spread.most.max(0.0), middle))
            + Text::new(
                super::table::number(bar.spread.median),
                (6, -6),
                words.clone(),
            );
        chart.draw_series([shape]).map_err(|error| failed(&error))?;
        chart
            .draw_series([whisker])
            .map_err(|error| failed(&error))?;
        chart
            .draw_series([number])
            .map_err(|error| failed(&error))?;
    }
    room.present().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::{Bar, Spread, bars};

    #[test]
    fn a_chart_names_everybody() {
        let spread = Spread {
            median: 2.0,
            least: 1.0,
            most: 3.0,
        };
        let named = ["forwarder", "nginx"].map(|label| Bar {
            label: label.to_owned(),
            spread,
            ours: label == "forwarder",
        });
        let text = bars("a title", "µs", &named).unwrap();
        for word in ["<svg", "a title", "forwarder", "nginx", "µs"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
}
