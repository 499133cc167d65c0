//! What the person at the terminal has chosen: view, order, filter, row; and the samples so far. Pure.

use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;

use super::grid::{Grid, Sort};
use super::picture::Picture;
use super::sample::Sample;
use super::views::View;

/// Samples whose totals are drawn as a line: as many as a wide terminal has columns.
const HISTORY: usize = 240;

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Go,
    /// End.
    Quit,
}

/// Everything that is on the screen.
#[derive(Debug)]
pub struct App {
    pub(super) view: View,
    sorts: [Sort; View::ALL.len()],
    pub(super) table: TableState,
    pub(super) paused: bool,
    pub(super) filter: String,
    /// Keys go to the filter.
    pub(super) typing: bool,
    pub(super) picture: Option<Picture>,
    /// Why there is nothing newer.
    pub(super) problem: Option<String>,
    /// Connections and bytes a second, both ways, the newest last.
    pub(super) history: VecDeque<[u64; 2]>,
}

impl Default for App {
    fn default() -> Self {
        Self {
            view: View::Overview,
            sorts: View::ALL.map(View::sort),
            table: TableState::default(),
            paused: false,
            filter: String::new(),
            typing: false,
            picture: None,
            problem: None,
            history: VecDeque::new(),
        }
    }
}

impl App {
    /// Takes another sample in, or why there is none. While paused, neither changes what is shown.
    pub fn take(&mut self, sample: Result<Sample, String>) {
        if self.paused {
            return;
        }
        match sample {
            Ok(sample) => {
                self.problem = None;
                let before = self.picture.take().map(|picture| picture.last);
                let picture = Picture::new(before.as_ref(), sample);
                if before.is_some() {
                    let total = picture.total;
                    let bytes = (total.up + total.down).round() as u64;
                    // In thousandths: a line of whole connections would be flat.
                    let opened = (total.opened * 1e3).round() as u64;
                    self.history.push_back([opened, bytes]);
                    let surplus = self.history.len().saturating_sub(HISTORY);
                    self.history.drain(..surplus);
                }
                self.picture = Some(picture);
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// The order of the view.
    pub(super) fn sort(&self) -> Sort {
        self.sorts[self.view as usize]
    }

    /// The view's rows as they are shown.
    pub(super) fn grid(&self) -> Grid {
        let picture = self.picture.as_ref();
        let grid = picture.map_or_else(
            || Grid {
                columns: self.view.columns(),
                rows: Vec::new(),
            },
            |picture| self.view.grid(picture),
        );
        grid.arranged(&self.filter, self.sort())
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
            return Next::Go;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char(digit @ '1'..='5') => self.turn_to(digit as usize - '1' as usize),
            KeyCode::Tab | KeyCode::Right => self.turn_to(self.view as usize + 1),
            KeyCode::BackTab | KeyCode::Left => {
                self.turn_to(self.view as usize + View::ALL.len() - 1);
            }
            KeyCode::Down | KeyCode::Char('j') => self.table.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.table.select_previous(),
            KeyCode::PageDown => self.table.scroll_down_by(10),
            KeyCode::PageUp => self.table.scroll_up_by(10),
            KeyCode::Home => self.table.select_first(),
            KeyCode::End => self.table.select_last(),
            KeyCode::Char('s') => {
                let columns = self.view.columns().len();
                let sort = &mut self.sorts[self.view as usize];
                sort.column = (sort.column + 1) % columns;
                sort.reverse = false;
            }
            KeyCode::Char('r') => {
                let sort = &mut self.sorts[self.view as usize];
                sort.reverse = !sort.reverse;
            }
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            _ => {}
        }
        Next::Go
    }

    fn turn_to(&mut self, view: usize) {
        self.view = View::ALL[view % View::ALL.len()];
        self.table = TableState::default();
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            _ => {}
        }
        self.table = TableState::default();
    }
}
