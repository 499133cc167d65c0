//! `forwarder init`: a first configuration, from flags, from what this machine shows, and from a few answers.
//!
//! ```text
//! flags ─▶ Draft ─┐
//! machine ─▶ Detected ─┼─▶ complete ─▶ Answers ─▶ template ─▶ config::parse ─▶ file
//! terminal ─▶ Terminal ┘
//! ```
//!
//! What is written has passed the same validation as in `forwarder check`, and takes its place in one step.

mod answers;
mod ask;
pub mod detect;
mod template;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use forwarder_common::name::NameError;

pub use self::answers::{Answers, InitError};
pub use self::ask::Terminal;
use self::detect::Detected;
use crate::config::difference::word;
use crate::config::model::{ClientAddress, Keyword, Pattern};
use crate::config::{self, Outcome};

/// The port of listener and nodes unless told otherwise.
const PORT: u16 = 443;
/// The pool's name unless told otherwise.
const POOL: &str = "home";
/// `IFNAMSIZ` of linux/if.h, less the closing NUL.
const INTERFACE_MAX: usize = 15;

/// What was told by flags; empty and `None` where nothing was.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// `--public`
    pub public: Vec<String>,
    /// `--tunnel`
    pub tunnels: Vec<String>,
    /// `--port`
    pub port: Option<u16>,
    /// `--pool`
    pub pool: Option<String>,
    /// `--node`
    pub nodes: Vec<String>,
    /// `--client-address`
    pub client_address: Option<String>,
    /// `--name`
    pub names: Vec<String>,
}

/// Completes what was told by what this machine shows, and by asking where there is somebody to ask.
pub fn complete(
    draft: &Draft,
    detected: &Detected,
    mut terminal: Option<&mut Terminal<'_>>,
) -> Result<Answers, InitError> {
    let public = several(
        &draft.public,
        &detected.public,
        terminal.as_deref_mut(),
        &Question {
            flag: "--public",
            what: "the interface that faces the internet",
            hint: String::from("; no default route tells"),
        },
        |word| interface(word).and_then(|name| present(name, &detected.links)),
    )?;
    let tunnels = several(
        &draft.tunnels,
        &detected.tunnels,
        terminal.as_deref_mut(),
        &Question {
            flag: "--tunnel",
            what: "the interface that leads to your nodes, WireGuard or Tailscale",
            hint: String::from("; there is no WireGuard or Tailscale interface here"),
        },
        interface,
    )?;
    let port = match (draft.port, terminal.as_deref_mut()) {
        (Some(port), _) => port,
        (None, None) => PORT,
        (None, Some(terminal)) => {
            let asked = "the port that clients connect to";
            terminal.ask(asked, Some(&PORT.to_string()), port)?
        }
    };
    let peers: Vec<_> = detected
        .peers
        .iter()
        .map(|ip| SocketAddr::new(*ip, PORT).to_string())
        .collect();
    let hint = match peers.as_slice() {
        [] => String::new(),
        peers => format!("; WireGuard's peers are {}", peers.join(", ")),
    };
    // Peers are offered, and never taken unasked: some are no servers.
    let offered = if terminal.is_some() {
        peers
    } else {
        Vec::new()
    };
    let nodes = several(
        &draft.nodes,
        &offered,
        terminal.as_deref_mut(),
        &Question {
            flag: "--node",
            what: "the address of a node in the tunnel, with its port if that is not 443",
            hint,
        },
        node,
    )?;
    let behind_tailscale = tunnels.iter().any(|name| name.starts_with("tailscale"));
    let judge = |word: &str| client_address(word, behind_tailscale);
    let client_address = match (&draft.client_address, terminal.as_deref_mut()) {
        (Some(word), _) => judge(word).map_err(|why| InitError::Bad {
            flag: "--client-address",
            value: word.clone(),
            why,
        })?,
        (None, None) => ClientAddress::ProxyV2,
        (None, Some(terminal)) => {
            let asked = if behind_tailscale {
                "how nodes learn a client's address: proxy-v2 (their server must expect it) or masquerade (not at all)"
            } else {
                "how nodes learn a client's address: proxy-v2 (their server must expect it), transparent (they must route answers back) or masquerade (not at all)"
            };
            terminal.ask(asked, Some(word(ClientAddress::ProxyV2)), judge)?
        }
    };
    let names = several(
        &draft.names,
        &[],
        terminal,
        &Question {
            flag: "--name",
            what: "a public name, such as www.example.org or *.apps.example.org",
            hint: String::new(),
        },
        name,
    )?;
    Ok(Answers {
        public,
        tunnels,
        port,
        pool: draft.pool.clone().unwrap_or_else(|| POOL.to_owned()),
        nodes,
        client_address,
        names,
    })
}

struct Question {
    flag: &'static str,
    what: &'static str,
    hint: String,
}

/// Words that were told, or asked for with what was seen as the default.
fn several<T>(
    told: &[String],
    seen: &[String],
    terminal: Option<&mut Terminal<'_>>,
    question: &Question,
    judge: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, InitError> {
    let all = |words: &[String]| {
        let judged = words.iter().map(|word| {
            judge(word).map_err(|why| InitError::Bad {
                flag: question.flag,
                value: word.clone(),
                why,
            })
        });
        judged.collect::<Result<Vec<T>, _>>()
    };
    if !told.is_empty() {
        return all(told);
    }
    if let Some(terminal) = terminal {
        let offered = (!seen.is_empty()).then(|| seen.join(" "));
        return terminal.ask(question.what, offered.as_deref(), |line| {
            let words = line.split([' ', ',', '\t']).filter(|word| !word.is_empty());
            let judged: Vec<T> = words
                .map(|word| judge(word).map_err(|why| format!("{word}: {why}")))
                .collect::<Result<_, _>>()?;
            if judged.is_empty() {
                return Err(String::from("at least one is needed"));
            }
            Ok(judged)
        });
    }
    if seen.is_empty() {
        return Err(InitError::Missing {
            flag: question.flag,
            what: question.what,
            hint: question.hint.clone(),
        });
    }
    all(seen)
}

fn interface(word: &str) -> Result<String, String> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '"' | '\\');
    if word.is_empty() || word.len() > INTERFACE_MAX || word.chars().any(is_odd) {
        return Err(String::from("this is no name of an interface"));
    }
    Ok(word.to_owned())
}

/// A tunnel may come later; what faces the internet is there, or misspelt.
fn present(name: String, links: &[String]) -> Result<String, String> {
    if links.is_empty() || links.contains(&name) {
        return Ok(name);
    }
    Err(format!(
        "there is no such interface; this machine has {}",
        links.join(", ")
    ))
}

fn port(word: &str) -> Result<u16, String> {
    let port = word.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| String::from("a number from 1 to 65535 is needed"))
}

/// `10.0.0.2`, `10.0.0.2:8443`, `fd00::2`, `[fd00::2]:8443`
fn node(word: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = word.parse() {
        return Ok(address);
    }
    let bare = word.trim_start_matches('[').trim_end_matches(']');
    let ip: Result<IpAddr, _> = bare.parse();
    ip.map(|ip| SocketAddr::new(ip, PORT)).map_err(|_| {
        String::from("an address is needed, such as 10.0.0.2, 10.0.0.2:8443 or [fd00::2]:8443")
    })
}

fn name(word: &str) -> Result<String, String> {
    let pattern = Pattern::parse(word).map_err(|error: NameError| error.to_string())?;
    Ok(pattern.to_string())
}

fn client_address(word: &str, behind_tailscale: bool) -> Result<ClientAddress, String> {
    match ClientAddress::from_word(word) {
        Some(ClientAddress::Transparent) if behind_tailscale => Err(String::from(
            "Tailscale drops packets with foreign sources; use proxy-v2 or masquerade",
        )),
        Some(own) => Ok(own),
        None => {
            let words = ClientAddress::WORDS.iter().map(|(word, _)| *word);
            let words: Vec<_> = words.collect();
            Err(format!("it is one of {}", words.join(", ")))
        }
    }
}

/// The configuration, validated as the file at `path`.
pub fn compose(answers: &Answers, path: &Path) -> Result<(String, Outcome), InitError> {
    let text = template::render(answers);
    let outcome = config::parse(path, text.as_str());
    if outcome.config.is_none() {
        return Err(InitError::Invalid(outcome.report.render(false)));
    }
    Ok((text, outcome))
}

/// Writes the file in one step: readers see all of it or nothing. Without `force` a file that is there stays.
pub fn write(path: &Path, text: &str, force: bool) -> Result<(), InitError> {
    let failed = |source| InitError::Write {
        path: path.to_owned(),
        source,
    };
    let exists = || InitError::Exists {
        path: path.to_owned(),
    };
    if !force && path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = directory.join(format!(".{name}.new"));
    let put = || {
        let mut file = std::fs::File::create(&new)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        if force {
            return std::fs::rename(&new, path);
        }
        // Unlike a rename, a link replaces nothing that appeared meanwhile.
        std::fs::hard_link(&new, path)?;
        std::fs::remove_file(&new)
    };
    put().map_err(|source| {
        // What is left of it is of no use to anybody.
        let _ = std::fs::remove_file(&new);
        if source.kind() == io::ErrorKind::AlreadyExists {
            exists()
        } else {
            failed(source)
        }
    })
}

#[cfg(test)]
mod tests;
