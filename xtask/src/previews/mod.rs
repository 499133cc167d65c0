//! `cargo xtask previews`: the dashboards as pictures in `docs/images/`, drawn from what a real Prometheus has
//! scraped in a busy lab.
//!
//! They are drawn by a chart library (ECharts) in a headless Chromium, and say so: Grafana is not in Debian, so it
//! cannot be run here, and these are no screenshots of it. The panels, their queries, units, thresholds, mappings
//! and legends are read from the dashboards' own files.
//!
//! Nothing of this is needed to build or to test. What it needs beside the lab is unpacked into the cache
//! (Chromium, a Debian package) or fetched there by npm (`package.json` beside this file), which must be installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, debian, privilege, process, tools};

/// How wide the pictures are, in pixels, as in `style.css`.
const WIDTH: u32 = 1440;
/// The height of a unit of Grafana's grid, as in `draw.js`, and of what stands above and below the panels.
const UNIT: u64 = 36;
const AROUND: u64 = 84;
/// How many colours a picture has.
const COLOURS: &str = "64";
/// A picture may be so large.
const LIMIT: u64 = 200_000;

/// Files of the page, put beside the packages of npm.
const FILES: &[(&str, &str)] = &[
    ("style.css", include_str!("style.css")),
    ("format.js", include_str!("format.js")),
    ("panels.js", include_str!("panels.js")),
    ("draw.js", include_str!("draw.js")),
    ("quantize.js", include_str!("quantize.js")),
    ("package.json", include_str!("package.json")),
    ("package-lock.json", include_str!("package-lock.json")),
];
const PAGE: &str = include_str!("page.html");
const SHELL: &str = "chromium-headless-shell";

/// Arguments of `previews`.
#[derive(Args)]
pub struct Arguments {
    /// How long the lab is busy.
    #[arg(long, default_value_t = 240)]
    seconds: u64,
    /// Draw the data of the run before once more; no lab is started.
    #[arg(long)]
    again: bool,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let folder = workspace.cache().join("previews");
    let data = folder.join("data.json");
    let browser = browser(workspace)?;
    packages(workspace, &folder)?;
    if !arguments.again {
        capture(workspace, arguments.seconds, &data)?;
    }
    let capture = read(&data)?;
    let pictures = workspace.root().join("docs/images");
    fs::create_dir_all(&pictures)?;
    for dashboard in dashboards(workspace)? {
        let name = dashboard["uid"]
            .as_str()
            .context("a dashboard without uid")?;
        let page = folder.join(format!("{name}.html"));
        fs::write(&page, html(&folder, &dashboard, &capture)?)?;
        let picture = pictures.join(format!("{name}.png"));
        screenshot(&browser, &page, &picture, height(&dashboard))?;
        quantize(&folder, &picture)?;
        let size = fs::metadata(&picture)?.len();
        eprintln!("  {}: {} KB", workspace.shown(&picture), size / 1000);
        if size > LIMIT {
            bail!("{} is larger than {LIMIT} bytes", picture.display());
        }
    }
    Ok(())
}

/// Chromium's program and its libraries.
struct Browser {
    program: PathBuf,
    libraries: Vec<PathBuf>,
}

fn browser(workspace: &Workspace) -> Result<Browser> {
    eprintln!("tools of the previews");
    tools::provide(workspace, tools::PREVIEWS)?;
    // What is in `bin` is a script that expects the program at its place on an installed system.
    let (script, libraries) = tools::locate(workspace, SHELL)?;
    let program = script
        .parent()
        .map(|folder| folder.join("../lib/chromium").join(SHELL))
        .filter(|program| debian::is_executable(program));
    Ok(Browser {
        program: program.with_context(|| format!("{SHELL} is not in its Debian package"))?,
        libraries,
    })
}

/// Fetches the chart library, the map and the typeface, as `package-lock.json` names them.
fn packages(workspace: &Workspace, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let lock = folder.join("package-lock.json");
    let fetched = folder.join("node_modules").is_dir()
        && fs::read_to_string(&lock).is_ok_and(|text| text == include_str!("package-lock.json"));
    for (name, text) in FILES {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if fetched {
        return Ok(());
    }
    if debian::machine_program("npm", Path::new("")).is_none() {
        bail!(
            "the previews need npm, to fetch ECharts, and node, which comes with it: `sudo apt-get install npm`"
        );
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(folder);
    process::step(
        workspace,
        "npm",
        "fetching ECharts, a map and a typeface",
        &mut npm,
    )
}

/// Runs the lab, as root.
fn capture(workspace: &Workspace, seconds: u64, data: &Path) -> Result<()> {
    setup::prepare(workspace, Purpose::Demo)?;
    build::kernel_programs(workspace)?;
    build::user_programs(workspace, false)?;
    privilege::ask("the lab (network namespaces, loading kernel programs)")?;
    let mut lab = privilege::as_root(&workspace.target().join("debug/busy-lab"));
    lab.args(["--seconds", &seconds.to_string(), "--output"]);
    process::run(lab.arg(data).current_dir(workspace.root()))
}

fn dashboards(workspace: &Workspace) -> Result<Vec<Value>> {
    let folder = workspace.root().join("dashboards");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Value> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// How high the picture of a dashboard is, in pixels.
fn height(dashboard: &Value) -> u64 {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let bottoms = panels.filter_map(|panel| {
        let place = &panel["gridPos"];
        Some(place["y"].as_u64()? + place["h"].as_u64()?)
    });
    bottoms.max().unwrap_or_default() * UNIT + AROUND
}

fn html(folder: &Path, dashboard: &Value, capture: &Value) -> Result<String> {
    let packages = folder.join("node_modules");
    let world = read(&packages.join("world-atlas/countries-110m.json"))?;
    let codes = read(&packages.join("i18n-iso-countries/codes.json"))?;
    let mut page = PAGE.to_owned();
    for (mark, value) in [
        ("WORLD", &world),
        ("CODES", &codes),
        ("DASHBOARD", dashboard),
        ("CAPTURE", capture),
    ] {
        // `</script>` in a text would end the script.
        let text = value.to_string().replace("</", "<\\/");
        page = page.replacen(&format!("/*{mark}*/null"), &text, 1);
    }
    Ok(page)
}

fn screenshot(browser: &Browser, page: &Path, picture: &Path, height: u64) -> Result<()> {
    let mut command = Command::new(&browser.program);
    if !browser.libraries.is_empty() {
        command.env("LD_LIBRARY_PATH", std::env::join_paths(&browser.libraries)?);
    }
    // Its sandbox does not work for root, and the page is our own.
    command
        .args(["--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args([
            "--allow-file-access-from-files",
            "--virtual-time-budget=5000",
        ])
        .arg(format!("--window-size={WIDTH},{height}"))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()));
    let _ = fs::remove_file(picture);
    process::output(&mut command).context("cannot draw a page")?;
    if !picture.exists() {
        bail!("Chromium drew no picture of {}", page.display());
    }
    Ok(())
}

/// Gives a picture a palette.
fn quantize(folder: &Path, picture: &Path) -> Result<()> {
    let mut node = Command::new("node");
    node.arg("quantize.js").arg(picture).arg(COLOURS);
    process::output(node.current_dir(folder)).map(drop)
}
