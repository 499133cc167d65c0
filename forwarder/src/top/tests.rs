//! Drawing, on what a daemon in the lab answered: two samples a second apart, while clients downloaded and were
//! refused, with one node down.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Next};
use super::grid::Sort;
use super::picture::Picture;
use super::sample::Sample;
use super::terminal::text;
use super::views::View;

const SIZE: (u16, u16) = (80, 24);

fn samples() -> [Sample; 2] {
    serde_json::from_str(include_str!("captured.json")).unwrap()
}

fn app() -> App {
    let mut app = App::default();
    for sample in samples() {
        app.take(Ok(sample));
    }
    app
}

fn press(app: &mut App, codes: impl IntoIterator<Item = KeyCode>) -> Next {
    let keys = codes
        .into_iter()
        .map(|code| KeyEvent::new(code, KeyModifiers::NONE));
    keys.map(|key| app.key(key)).last().unwrap_or(Next::Go)
}

fn type_in(app: &mut App, text: &str) {
    press(app, text.chars().map(KeyCode::Char));
}

#[test]
fn every_view_fits_eighty_columns() {
    let mut app = app();
    for (key, view) in ('1'..).zip(View::ALL) {
        press(&mut app, [KeyCode::Char(key)]);
        let title = view.title().to_lowercase();
        insta::assert_snapshot!(title, text(&mut app, SIZE));
    }
}

#[test]
fn any_size_will_do() {
    let mut app = app();
    for columns in [1, 20, 79, 300] {
        for lines in [1, 3, 10, 100] {
            for key in '1'..='5' {
                press(&mut app, [KeyCode::Char(key)]);
                assert_eq!(
                    text(&mut app, (columns, lines)).lines().count(),
                    usize::from(lines)
                );
            }
        }
    }
    text(&mut App::default(), SIZE);
}

#[test]
fn rates_are_differences_over_time() {
    let [before, mut last] = samples();
    let seconds = last.time - before.time;
    let route = &before.status.routes[0].traffic;
    let after = &mut last.status.routes[0].traffic;
    after.opened = route.opened + 10;
    after.down_bytes = route.down_bytes + 4_096;
    let picture = Picture::new(Some(&before), last.clone());
    let rates = picture.routes[0];
    assert!((rates.opened * seconds - 10.0).abs() < 1e-6, "{rates:?}");
    assert!((rates.down * seconds - 4_096.0).abs() < 1e-6, "{rates:?}");
    let alone = Picture::new(None, last.clone());
    assert_eq!((alone.total.opened, alone.refused), (0.0, 0.0));
    // Maps made anew count from zero.
    last.status.routes[0].traffic.opened = 3;
    let anew = Picture::new(Some(&before), last);
    assert!((anew.routes[0].opened * seconds - 3.0).abs() < 1e-6);
}

#[test]
fn keys_choose_view_order_and_rows() {
    let mut app = app();
    press(&mut app, [KeyCode::Tab, KeyCode::Right]);
    assert_eq!(app.view, View::Routes);
    press(
        &mut app,
        [KeyCode::Left, KeyCode::BackTab, KeyCode::BackTab],
    );
    assert_eq!(app.view, View::Refusals);
    let before = app.sort();
    press(&mut app, [KeyCode::Char('s')]);
    assert_ne!(app.sort(), before);
    press(&mut app, [KeyCode::Char('r')]);
    assert!(app.sort().reverse);
    press(&mut app, [KeyCode::Char('4'), KeyCode::Char('5')]);
    assert!(app.sort().reverse, "each view keeps its order");
    press(&mut app, [KeyCode::Down, KeyCode::Down, KeyCode::Up]);
    text(&mut app, SIZE);
    assert_eq!(app.table.selected(), Some(0));
    assert_eq!(View::Nodes.sort(), Sort::default());
}

#[test]
fn a_filter_leaves_what_fits() {
    let mut app = app();
    press(&mut app, [KeyCode::Char('5'), KeyCode::Char('/')]);
    type_in(&mut app, "UNLISTED_Q");
    press(&mut app, [KeyCode::Backspace]);
    assert!(text(&mut app, SIZE).contains("filter: UNLISTED_▏"));
    assert_eq!(press(&mut app, [KeyCode::Enter]), Next::Go);
    let rows = app.grid().rows;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].cells[0].0, "unlisted_name");
    assert!(text(&mut app, SIZE).contains("[UNLISTED_]"));
    press(&mut app, [KeyCode::Esc]);
    assert!(app.grid().rows.len() > 1);
    // While it is typed, letters are letters.
    press(&mut app, [KeyCode::Char('/')]);
    assert_eq!(press(&mut app, [KeyCode::Char('q')]), Next::Go);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.key(control_c), Next::Quit);
    press(&mut app, [KeyCode::Esc]);
    assert_eq!(press(&mut app, [KeyCode::Char('q')]), Next::Quit);
}

#[test]
fn a_pause_holds_the_picture_and_a_problem_is_shown_below() {
    let mut app = app();
    let [_, last] = samples();
    press(&mut app, [KeyCode::Char('p')]);
    assert!(text(&mut app, SIZE).contains("PAUSED"));
    let mut later = last.clone();
    later.status.flows.open = 4_321;
    app.take(Ok(later.clone()));
    assert!(!text(&mut app, SIZE).contains("4321"));
    press(&mut app, [KeyCode::Char(' ')]);
    app.take(Err(String::from("no daemon answers")));
    let shown = text(&mut app, SIZE);
    assert!(
        shown.lines().last().unwrap().contains("no daemon answers"),
        "{shown}"
    );
    assert!(shown.contains("Nodes ("), "the last picture stays");
    app.take(Ok(later));
    let shown = text(&mut app, SIZE);
    assert!(
        shown.contains("4321") && !shown.contains("no daemon"),
        "{shown}"
    );
}
