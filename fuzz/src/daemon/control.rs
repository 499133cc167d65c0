//! The control socket.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use forwarder::config::difference::Difference;
use forwarder::config::lasting::Lasts;
use forwarder::config::{self, Sources, persist};
use forwarder::control::server::serve;
use forwarder::dataplane::registry::Registry;
use forwarder::instance::paths::Paths;
use forwarder::link::Network;
use forwarder::reconcile::Handle;
use forwarder::reconcile::command::{self, Command, Confirmed, Edited, Snapshot};
use forwarder::reconcile::refused::Refused;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::mpsc::Receiver;

const CONFIGURATION: &str = r#"
[entrance]
public = ["eth0"]
tunnels = ["wg0"]

[[listener]]
name = "https"
protocol = "tls"
port = 443

[[pool]]
name = "k3s"
client_address = "proxy-v2"
nodes = ["10.0.0.2:443", { name = "thinkpad", address = "10.0.0.6:443", weight = 2 }]

[[route]]
names = ["www.example.org", "*.apps.example.org"]
pool = "k3s"
"#;

/// Nothing takes so long.
const LIMIT: Duration = Duration::from_secs(30);

/// A panic anywhere, also where somebody catches it.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// A request: a byte that says how it is sent, then either a line with method and path and the body below it, or
/// (`r`) the very bytes of a connection. Nothing panics, every request is answered, what is not a success says so in
/// the form that `docs/control.md` promises, and the connection ends.
pub fn control(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let address = server();
    let mut stream = UnixStream::connect_addr(address).expect("the server listens");
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    if *how == b'r' {
        // Whoever is refused early does not read on.
        let _ = stream.write_all(data);
        let _ = stream.shutdown(Shutdown::Write);
        answer(&mut stream);
    } else {
        let (line, body) = data
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
        let kind = match how & 1 {
            1 => "Content-Type: application/json\r\n",
            _ => "",
        };
        let mut request = line.to_vec();
        let length = body.len();
        request.extend(
            format!(" HTTP/1.1\r\nHost: forwarder\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n")
                .bytes(),
        );
        request.extend(body);
        let _ = stream.write_all(&request);
        let answer = answer(&mut stream);
        let is_head = line.starts_with(b"HEAD ");
        check(&answer, is_head);
    }
    assert!(!PANICKED.load(Ordering::SeqCst), "a panic in the server");
}

/// What comes until the connection ends, or the beginning of a stream of events.
fn answer(stream: &mut UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return answer,
            Ok(length) => answer.extend(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return answer,
            Err(error) => panic!(
                "no end: {error}; so far {:?}",
                String::from_utf8_lossy(&answer)
            ),
        }
        let text = String::from_utf8_lossy(&answer);
        if text.contains("text/event-stream") && text.contains("\r\n\r\n") {
            return answer;
        }
    }
}

fn check(answer: &[u8], is_head: bool) {
    let text = std::str::from_utf8(answer).expect("an answer in text");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse::<u16>().ok())
        .unwrap_or_else(|| panic!("no status: {head}"));
    match status {
        200..300 => {}
        // HTTP itself was not understood.
        400 | 414 | 431 if body.is_empty() => {}
        400..600 if is_head && body.is_empty() => {}
        400..600 => {
            let value: Value = serde_json::from_str(body)
                .unwrap_or_else(|error| panic!("{status} without JSON: {body:?}: {error}"));
            let error = &value["error"];
            assert_eq!(error["status"], status, "{body}");
            let message = error["message"].as_str().unwrap_or_default();
            assert!(!message.is_empty(), "{body}");
        }
        _ => panic!("status {status}"),
    }
}

/// The address of a server like the daemon's, with a loop behind it that knows a configuration and no maps.
fn server() -> &'static SocketAddr {
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    SERVER.get_or_init(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::SeqCst);
            former(panic);
        }));
        let name = format!("forwarder-fuzz-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).expect("a name of our own");
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (commands, waiting) = command::channel();
                let handle = Handle {
                    commands,
                    events: broadcast::channel(16).0,
                    tally: Arc::default(),
                };
                tokio::spawn(run(waiting));
                serve(listener.try_into().unwrap(), handle).await;
            });
        });
        address
    })
}

/// What the daemon's loop does, without anything that lasts.
async fn run(mut waiting: Receiver<Command>) {
    let sources = Sources::new(Path::new("/nowhere/forwarder.toml"), CONFIGURATION);
    let config = Arc::new(config::validate(sources.clone()).config.expect("valid"));
    let nowhere = Path::new("/nowhere/forwarder");
    while let Some(command) = waiting.recv().await {
        match command {
            Command::Show(reply) => {
                let _ = reply.send(Ok(Snapshot {
                    config: Arc::clone(&config),
                    registry: Registry::default(),
                    network: Network::default(),
                    paths: Paths::new(nowhere, nowhere),
                    edits: Vec::new(),
                }));
            }
            Command::Edit {
                edit,
                persist,
                reply,
                ..
            } => {
                let applied = edit.apply(&config).map(drop).map_err(Refused::from);
                let written = match persist {
                    true => persist::prepare(&sources, &edit)
                        .map(|_| ())
                        .map_err(Refused::from),
                    false => Ok(()),
                };
                let done = applied.and(written);
                let _ = reply.send(done.map(|()| Edited {
                    difference: Difference::between(&config, &config),
                    persisted: persist,
                    until: Lasts::of(&edit, persist),
                    files: Vec::new(),
                    reset: 0,
                }));
            }
            Command::Reload { reply, .. } => drop(reply.send(Err(Refused::Stopping))),
            Command::Confirm(reply) => drop(reply.send(Ok(Confirmed { waited: false }))),
        }
    }
}
