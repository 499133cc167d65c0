//! Checks against real servers on the loopback interface.

use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;

const NAME: &str = "www.example.org";
const ANSWER: &str = "HTTP/1.1 204 No Content\r\n\r\n";

struct Pki {
    server: Arc<ServerConfig>,
    roots: RootCertStore,
}

fn pki(year: i32) -> Pki {
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 2);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Pki {
        server: Arc::new(server),
        roots,
    }
}

fn method(check: Check) -> Method {
    Method {
        checks: Checks {
            check,
            server_name: None,
            path: String::from("/healthz"),
            expect: Vec::new(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 3,
            proxy: None,
            verify: false,
            passive: true,
        },
        server_name: Some(NAME.to_owned()),
        trust: check
            .is_tls()
            .then(|| Arc::new(Trust::with_roots(None).unwrap())),
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Serves one connection, in clear or over TLS: reads `first` bytes as they come, then a request, then answers.
/// Returns the first bytes and the request.
fn serve(
    listener: TcpListener,
    first: usize,
    tls: Option<&Pki>,
    answer: &'static str,
) -> JoinHandle<(Vec<u8>, String)> {
    let acceptor = tls.map(|pki| TlsAcceptor::from(Arc::clone(&pki.server)));
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut head = vec![0; first];
        stream.read_exact(&mut head).await.unwrap();
        let request = match acceptor {
            Some(acceptor) => {
                let mut stream = acceptor.accept(stream).await.unwrap();
                exchange(&mut stream, answer).await
            }
            None => exchange(&mut stream, answer).await,
        };
        (head, request)
    })
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, answer: &str) -> String {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return String::from_utf8(request).unwrap(),
            Ok(length) => request.extend_from_slice(&chunk[..length]),
        }
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    String::from_utf8(request).unwrap()
}

async fn run(method: &Method, node: SocketAddr) -> Outcome {
    method.run(node, Some("lo")).await
}

#[tokio::test]
async fn a_port_is_open_or_closed() {
    let (listener, address) = listen().await;
    assert!(run(&method(Check::Tcp), address).await.result.is_ok());
    drop(listener);
    let outcome = run(&method(Check::Tcp), address).await;
    assert!(
        matches!(outcome.result, Err(CheckError::Connect(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn without_a_tunnel_nothing_is_sent() {
    let (listener, address) = listen().await;
    let outcome = method(Check::Tcp).run(address, None).await;
    assert!(
        matches!(outcome.result, Err(CheckError::NoTunnel)),
        "{outcome:?}"
    );
    let accepted = timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "somebody connected");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let (_listener, address) = listen().await;
    for check in [Check::Tls, Check::Http, Check::Https] {
        let outcome = run(&method(check), address).await;
        assert!(
            matches!(outcome.result, Err(CheckError::Timeout(_))),
            "{outcome:?}"
        );
        assert!(outcome.took >= Duration::from_millis(500));
    }
}

#[tokio::test]
async fn a_request_names_host_and_path_and_the_status_decides() {
    let cases: [(&[u16], &'static str, Option<u16>); 5] = [
        (&[], "HTTP/1.1 200 OK\r\n\r\n", None),
        (&[], "HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n", None),
        (&[], "HTTP/1.1 404 Not Found\r\n\r\n", Some(404)),
        (&[200, 404], "HTTP/1.1 404\r\n\r\n", None),
        (&[404], "HTTP/1.1 200 OK\r\n\r\n", Some(200)),
    ];
    for (expect, answer, refused) in cases {
        let (listener, address) = listen().await;
        let server = serve(listener, 0, None, answer);
        let mut method = method(Check::Http);
        method.checks.expect = expect.to_vec();
        let outcome = run(&method, address).await;
        match refused {
            None => assert!(outcome.result.is_ok(), "{answer:?}: {outcome:?}"),
            Some(code) => assert!(
                matches!(outcome.result, Err(CheckError::Status(status)) if status == code),
                "{answer:?}: {outcome:?}"
            ),
        }
        let request = server.await.unwrap().1;
        assert!(
            request.starts_with("GET /healthz HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("\r\nHost: www.example.org\r\n"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_failure() {
    for answer in ["SSH-2.0-x\r\n", "HTTP/2 200\r\n", "HTTP/1.1 20x\r\n"] {
        let (listener, address) = listen().await;
        let _server = serve(listener, 0, None, answer);
        let outcome = run(&method(Check::Http), address).await;
        assert!(
            matches!(outcome.result, Err(CheckError::NotHttp)),
            "{answer:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn tls_tells_when_the_certificate_expires_valid_or_not() {
    for (year, written) in [
        (2090, "2090-01-02T00:00:00Z"),
        (2001, "2001-01-02T00:00:00Z"),
    ] {
        let pki = pki(year);
        for verify in [false, true] {
            let (listener, address) = listen().await;
            let _server = serve(listener, 0, Some(&pki), "");
            let mut method = method(Check::Tls);
            method.checks.verify = verify;
            method.trust = Some(Arc::new(
                Trust::with_roots(Some(pki.roots.clone())).unwrap(),
            ));
            let outcome = run(&method, address).await;
            let expires = outcome.expires.map(humantime::format_rfc3339_seconds);
            assert_eq!(
                expires.map(|time| time.to_string()).as_deref(),
                Some(written)
            );
            match &outcome.result {
                Ok(()) => assert!(!verify || year == 2090, "expired"),
                Err(CheckError::Certificate(_)) => assert!(verify && year == 2001),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_only_if_asked() {
    let pki = pki(2090);
    for verify in [false, true] {
        let (listener, address) = listen().await;
        let _server = serve(listener, 0, Some(&pki), "");
        let mut method = method(Check::Tls);
        method.checks.verify = verify;
        method.server_name = Some(String::from("other.example.org"));
        method.trust = Some(Arc::new(
            Trust::with_roots(Some(pki.roots.clone())).unwrap(),
        ));
        let outcome = run(&method, address).await;
        let refused = matches!(outcome.result, Err(CheckError::Certificate(_)));
        assert_eq!(refused, verify, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_proxy_header_comes_first_and_says_what_is_asked_for() {
    let pki = pki(2090);
    for (check, tls) in [(Check::Http, None), (Check::Https, Some(&pki))] {
        for command in [ProxyCommand::Local, ProxyCommand::Proxy] {
            let (listener, address) = listen().await;
            let first = match command {
                ProxyCommand::Local => proxy_header::LOCAL.len(),
                ProxyCommand::Proxy => proxy_header::of(address, address, NAME).len(),
            };
            let server = serve(listener, first, tls, ANSWER);
            let mut method = method(check);
            method.checks.proxy = Some(command);
            let outcome = run(&method, address).await;
            assert!(outcome.result.is_ok(), "{outcome:?}");
            let (header, request) = server.await.unwrap();
            match command {
                ProxyCommand::Local => {
                    assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
                }
                ProxyCommand::Proxy => {
                    assert_eq!(&header[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
                    assert_eq!(&header[16..24], &[127, 0, 0, 1, 127, 0, 0, 1]);
                    assert_eq!(header[26..28], address.port().to_be_bytes());
                    assert!(header.windows(NAME.len()).any(|own| own == NAME.as_bytes()));
                }
            }
            assert!(request.starts_with("GET /healthz "), "{request}");
        }
    }
}

/// A server that takes no client without a certificate of its own.
fn demanding(version: &'static rustls::SupportedProtocolVersion) -> Arc<ServerConfig> {
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2090, 1, 2);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    Arc::new(server)
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_of_the_client_works() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (listener, address) = listen().await;
        let acceptor = TlsAcceptor::from(demanding(version));
        let server = tokio::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            acceptor.accept(stream).await.map(drop)
        });
        let outcome = run(&method(Check::Tls), address).await;
        assert!(outcome.result.is_ok(), "{version:?}: {outcome:?}");
        let expires = outcome.expires.map(humantime::format_rfc3339_seconds);
        let expires = expires.map(|time| time.to_string());
        assert_eq!(expires.as_deref(), Some("2090-01-02T00:00:00Z"));
        let refused = server.await.unwrap();
        assert!(refused.is_err(), "{version:?}: it let the check in");
    }
}

/// A server that refuses every name with an alert, as `ssl_reject_handshake` does.
#[tokio::test]
async fn without_a_name_to_ask_for_a_refusal_is_a_sign_of_life() {
    let alert = [21, 3, 3, 0, 2, 2, 112];
    for (name, works) in [(None, true), (Some(NAME), false)] {
        let (listener, address) = listen().await;
        let server = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            let mut hello = [0; 2048];
            let _ = stream.read(&mut hello).await.unwrap();
            stream.write_all(&alert).await.unwrap();
            // Until the client has gone.
            let _ = stream.read(&mut hello).await;
        });
        let mut method = method(Check::Tls);
        method.server_name = name.map(str::to_owned);
        let outcome = run(&method, address).await;
        assert_eq!(outcome.result.is_ok(), works, "{name:?}: {outcome:?}");
        server.await.unwrap();
    }
}

/// What a server is told of a check it may write into its log.
#[tokio::test]
async fn no_server_hears_of_a_port_that_is_only_tried() {
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(loopback).await.unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..5 {
            let outcome = run(&method(Check::Tcp), address).await;
            assert!(outcome.result.is_ok(), "{outcome:?}");
        }
        let accepted = timeout(Duration::from_millis(300), listener.accept()).await;
        assert!(accepted.is_err(), "the server was told: {accepted:?}");
    }
}

#[tokio::test]
async fn tls_ends_as_it_should() {
    let pki = pki(2090);
    for check in [Check::Tls, Check::Https] {
        for verify in [false, true] {
            let (listener, address) = listen().await;
            let acceptor = TlsAcceptor::from(Arc::clone(&pki.server));
            let server = tokio::spawn(async move {
                let stream = listener.accept().await.unwrap().0;
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut request = [0; 1024];
                let mut answered = false;
                loop {
                    match stream.read(&mut request).await? {
                        0 => break,
                        _ if !answered => {
                            answered = true;
                            stream.write_all(ANSWER.as_bytes()).await?;
                            stream.write_all(&[b' '; 8_192]).await?;
                        }
                        _ => {}
                    }
                }
                // Nothing of ours is lost either: the client still reads.
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.shutdown().await?;
                // A reset would show here.
                let (mut socket, _) = stream.into_inner();
                socket.read(&mut request).await
            });
            let mut method = method(check);
            // No authority of this machine knows the certificate.
            method.checks.verify = verify;
            let outcome = run(&method, address).await;
            assert_eq!(outcome.result.is_ok(), !verify, "{outcome:?}");
            // `Ok(0)` of TLS is a `close_notify`; its absence would be an error.
            let end = server.await.unwrap();
            assert_eq!(end.unwrap(), 0, "{check:?}, verify {verify}");
        }
    }
}
