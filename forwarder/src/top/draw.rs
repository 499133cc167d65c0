//! From an [`App`] to characters. Fits 80 columns and 24 lines; in less, the last rows and columns are missing.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, Tabs};

use super::app::App;
use super::grid::{Grid, Sort, Width};
use super::picture::Picture;
use super::views::View;
use crate::health::words;
use crate::units::{age, bandwidth, rate};

const DIM: Style = Style::new().fg(Color::DarkGray);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const ALARM: Style = Style::new().fg(Color::Red);
const KEYS: &str = "q quit  tab/1-5 view  ↑↓ row  s sort  r reverse  p pause  / filter";

impl App {
    /// Draws everything.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, tabs, body, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        let titles = (1..).zip(View::ALL);
        let titles = titles.map(|(number, view)| format!("{number} {}", view.title()));
        let tabs_line = Tabs::new(titles)
            .select(self.view as usize)
            .style(DIM)
            .highlight_style(BOLD.add_modifier(Modifier::REVERSED));
        frame.render_widget(tabs_line, tabs);
        if self.view == View::Overview {
            self.overview(frame, body);
        } else {
            self.table(frame, body);
        }
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    /// Who, how much, how well: three lines.
    fn head(&self) -> Vec<Line<'static>> {
        let Some(picture) = &self.picture else {
            return vec![Line::from("waiting for the daemon")];
        };
        let status = &picture.last.status;
        let up = status.started.map(|started| picture.last.time - started);
        let up = up.and_then(|up| Duration::try_from_secs_f64(up).ok());
        let mut first = vec![Span::styled("forwarder", BOLD)];
        first.push(Span::raw(format!(
            "  up {}",
            up.map_or_else(String::new, age)
        )));
        first.push(Span::raw(format!(
            "  flows {} of {}",
            status.flows.open, status.flows.max
        )));
        if !status.edits.is_empty() {
            first.push(Span::raw(format!("  edits {}", status.edits.len())));
        }
        if self.paused {
            first.push(Span::styled("  PAUSED", BOLD.fg(Color::Yellow)));
        }
        let Picture { total, refused, .. } = picture;
        let second = format!(
            "{} connections/s  {} refused/s  up {}  down {}",
            rate(total.opened),
            rate(*refused),
            bandwidth(total.up),
            bandwidth(total.down)
        );
        let mut third = vec![Span::raw("pools")];
        for pool in &status.pools {
            let style = if pool.available == 0 {
                ALARM
            } else {
                Style::new()
            };
            third.push(Span::styled(
                format!("  {} {}", pool.name, words::pool(pool)),
                style,
            ));
        }
        vec![Line::from(first), Line::from(second), Line::from(third)]
    }

    fn foot(&self) -> Line<'static> {
        if self.typing {
            return Line::from(format!(
                "filter: {}▏ (enter keeps it, esc drops it)",
                self.filter
            ));
        }
        if let Some(problem) = &self.problem {
            return Line::styled(problem.clone(), ALARM);
        }
        let mut spans = vec![Span::styled(KEYS, DIM)];
        if !self.filter.is_empty() {
            spans.insert(0, Span::styled(format!("[{}]  ", self.filter), BOLD));
        }
        Line::from(spans)
    }

    fn overview(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let reasons = self.beside(View::Refusals);
        let shown = u16::try_from(reasons.rows.len()).unwrap_or(u16::MAX).min(5) + 2;
        let status = self.picture.as_ref().map(|picture| &picture.last.status);
        let nodes = status.map_or(0, |status| status.nodes.len());
        // A border and a heading; what a tall terminal has left over shows the busiest flows.
        let nodes = u16::try_from(nodes).unwrap_or(u16::MAX).saturating_add(2);
        let [lines, nodes, flows, below] = Layout::vertical([
            Constraint::Length(4),
            Constraint::Max(nodes),
            Constraint::Fill(1),
            Constraint::Length(shown),
        ])
        .areas(area);
        let [left, right] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(lines);
        self.line(frame, left, 0, "connections/s");
        self.line(frame, right, 1, "bytes/s");
        self.table(frame, nodes);
        if flows.height > 2 {
            let grid = self.beside(View::Flows);
            aside(frame, flows, "Busiest flows", &grid, View::Flows);
        }
        aside(
            frame,
            below,
            "Refused and dropped",
            &reasons,
            View::Refusals,
        );
    }

    /// Another view in its usual order.
    fn beside(&self, view: View) -> Grid {
        let rows = self.picture.as_ref().map(|picture| view.grid(picture).rows);
        let grid = Grid {
            columns: view.columns(),
            rows: rows.unwrap_or_default(),
        };
        grid.arranged("", view.sort())
    }

    /// One of the two lines of the last minutes, the newest at the right.
    fn line(&self, frame: &mut Frame<'_>, area: Rect, which: usize, title: &str) {
        let room = self.history.len().saturating_sub(area.width.into());
        let values: Vec<u64> = self
            .history
            .iter()
            .skip(room)
            .map(|own| own[which])
            .collect();
        let peak = values.iter().max().copied().unwrap_or_default();
        let peak = match which {
            0 => rate(peak as f64 / 1e3),
            _ => bandwidth(peak as f64),
        };
        let block = Block::new()
            .borders(Borders::TOP)
            .title(title.to_owned())
            .title(Line::from(format!("peak {peak} ")).alignment(Alignment::Right));
        let line = Sparkline::default().data(values).block(block);
        frame.render_widget(line.style(Style::new().fg(Color::Cyan)), area);
    }

    fn table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let grid = self.grid();
        if grid.rows.is_empty() {
            let words = match (&self.picture, self.filter.is_empty()) {
                (None, _) => "",
                (Some(_), true) => "nothing yet",
                (Some(_), false) => "nothing that fits the filter; esc drops it",
            };
            frame.render_widget(Paragraph::new(words).style(DIM), area);
            return;
        }
        let block = Block::new().borders(Borders::TOP).title(format!(
            "{} ({})",
            if self.view == View::Overview {
                "Nodes"
            } else {
                self.view.title()
            },
            grid.rows.len()
        ));
        let table = table(&grid, self.sort()).block(block);
        frame.render_stateful_widget(table, area, &mut self.table);
    }
}

/// A view beside the one that keys are for.
fn aside(frame: &mut Frame<'_>, area: Rect, title: &'static str, grid: &Grid, view: View) {
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(table(grid, view.sort()).block(block), area);
}

fn table(grid: &Grid, sort: Sort) -> Table<'static> {
    let right = |column: usize| matches!(grid.columns[column].width, Width::Number(_));
    let line = |column: usize, text: String| {
        let line = Line::from(text);
        if right(column) {
            line.alignment(Alignment::Right)
        } else {
            line
        }
    };
    let header = grid.columns.iter().enumerate().map(|(at, column)| {
        let style = if at == sort.column {
            BOLD.add_modifier(Modifier::UNDERLINED)
        } else {
            BOLD
        };
        Cell::from(line(at, column.title.to_owned())).style(style)
    });
    let rows = grid.rows.iter().map(|row| {
        let cells = row.cells.iter().enumerate();
        let cells = cells.map(|(at, (shown, _))| Cell::from(line(at, shown.clone())));
        Row::new(cells).style(if row.alarm { ALARM } else { Style::new() })
    });
    let widths = grid.columns.iter().map(|column| match column.width {
        Width::Number(width) => Constraint::Length(width),
        Width::Wide(share) => Constraint::Fill(share),
    });
    Table::new(rows, widths)
        .header(Row::new(header))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}
