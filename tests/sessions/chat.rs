//! The chat: WebSockets whose clients do not notice that their server is replaced.

use crate::support::{PATIENCE, SIGKILL, Service, faulty_script, process_state, signal, thaw, wait_until};
use crate::websocket::{Client, bytes_of, text_frame};
use crate::{Programs, commit, hang, launch, roll_back, write_until_stalled};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::Data;
use tungstenite::{Error, Message};

fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| Programs::of("chat"))
}

fn start_chat(program: &Path) -> Service {
    let mut service = Service::place();
    launch(&mut service, "chat", program);
    service
}

fn with_fault(service: &Service, fault: &str) -> PathBuf {
    faulty_script(service.dir.path(), &programs().faulty, fault)
}

/// An upgrade to a successor that ends badly, but for the one that hangs.
fn undone(service: &Service, fault: &str) {
    roll_back(service, || service.upgrade(&with_fault(service, fault), &[]));
}

/// What a client says as its `number`-th message: of any size, so that replies are cut in many places.
fn text(nick: &str, number: u64) -> String {
    format!("{nick} {number} {}", "é".repeat((number * 97 % 1500) as usize))
}

/// Clients who talk without a pause, two in each room, and check every message of both.
struct Talk {
    stop: Arc<AtomicBool>,
    heard: Vec<Arc<AtomicU64>>,
    talkers: Vec<JoinHandle<Client>>,
}

impl Talk {
    const BURST: u64 = 8;

    fn start(address: SocketAddr, rooms: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let heard: Vec<_> = (0..2 * rooms).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let talker = |(i, heard): (usize, &Arc<AtomicU64>)| {
            let client = Client::join(address, &format!("talker{i}"), &format!("room{}", i / 2));
            let (stop, heard) = (Arc::clone(&stop), Arc::clone(heard));
            thread::spawn(move || Self::talk(client, &format!("talker{i}"), &stop, &heard))
        };
        let talkers = heard.iter().enumerate().map(talker).collect();
        Self { stop, heard, talkers }
    }

    fn talk(mut client: Client, nick: &str, stop: &AtomicBool, heard: &AtomicU64) -> Client {
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..Self::BURST {
                let text = text(nick, client.sent + 1);
                match text.len().checked_sub(1000).map(|at| text.floor_char_boundary(at)) {
                    Some(middle) => client.say_in_parts(&text[..middle], &text[middle..]),
                    None => client.say(text),
                }
            }
            Self::hear_until_own(&mut client, nick, heard);
        }
        client
    }

    /// Up to the last that it said itself.
    fn hear_until_own(client: &mut Client, nick: &str, heard: &AtomicU64) {
        loop {
            let message = client.hear();
            assert_eq!(message.text, text(&message.from, message.number));
            heard.fetch_add(1, Ordering::Relaxed);
            if message.from == nick && message.number == client.sent {
                return;
            }
        }
    }

    /// Every client hears more than it has heard by now.
    fn goes_on(&self) {
        let before: Vec<u64> = self.heard.iter().map(|heard| heard.load(Ordering::Relaxed)).collect();
        wait_until("every client hears more", || {
            let more =
                |(heard, before): (&Arc<AtomicU64>, &u64)| heard.load(Ordering::Relaxed) > before + 2 * Self::BURST;
            self.heard.iter().zip(&before).all(more).then_some(())
        });
    }

    /// How many messages were heard.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.talkers.into_iter().for_each(|talker| drop(talker.join().unwrap()));
        self.heard.iter().map(|heard| heard.load(Ordering::Relaxed)).sum()
    }
}

#[test]
fn streams_and_idle_clients_live_through_commits_rollbacks_and_kills() {
    let service = start_chat(&programs().a);
    let mut idle: Vec<Client> = (0..300).map(|i| Client::join(service.address, "idle", &format!("idle{i}"))).collect();
    let talk = Talk::start(service.address, 3);
    talk.goes_on();
    for round in 0..4 {
        commit(&service, if round % 2 == 0 { &programs().b } else { &programs().a });
        talk.goes_on();
        undone(&service, "unhealthy");
        talk.goes_on();
        undone(&service, "crash");
        talk.goes_on();
        let (upgrading, successor) = hang(&service, &with_fault(&service, "hang"));
        signal(successor, SIGKILL);
        roll_back(&service, || upgrading.wait());
        talk.goes_on();
    }
    println!("{} messages", talk.stop());
    let server = (service.daemon_pid(), "a".to_owned());
    for client in &mut idle {
        client.round("still here");
        assert_eq!(client.server(), server);
    }
    assert!(!service.stderr().contains("chat: "), "{}", service.stderr());
}

/// A client that sends the same bytes as all others, but for the name of its room.
fn bytes_of_a_session(room: usize) -> Vec<u8> {
    let mut bytes = b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        .to_vec();
    let message = |text: &str| text_frame(text, Data::Text, true);
    bytes.extend(message(&format!("/join {room:05}")));
    bytes.extend(message(""));
    bytes.extend(message(&"long ".repeat(30)));
    bytes.extend(text_frame("frag", Data::Text, false));
    bytes.extend(bytes_of(Frame::ping("ping")));
    bytes.extend(text_frame("ment", Data::Continue, true));
    bytes.extend(bytes_of(Frame::close(None)));
    bytes
}

/// The reply to the handshake above, and to each frame.
fn check_session(mut stream: TcpStream, room: usize) {
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        reply.push(byte[0]);
    }
    let reply = String::from_utf8(reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 101 ") && reply.contains(": s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{reply}");
    let mut client = Client::upgraded(stream);
    assert!(client.hear().text.starts_with(&format!("anonymous in {room:05} at ")));
    assert_eq!(client.hear().text, "");
    assert_eq!(client.hear().text, "long ".repeat(30));
    assert_eq!(client.socket.read().unwrap(), Message::Pong("ping".into()));
    assert_eq!(client.hear().text, "fragment");
    assert_eq!(client.socket.read().unwrap(), Message::Close(None));
    assert!(matches!(client.socket.read(), Err(tungstenite::Error::ConnectionClosed)));
}

/// No event comes for it: as after a time in which a client read no replies.
#[test]
fn what_was_read_and_not_handled_is_handled_at_once() {
    let mut service = Service::place();
    let stuffing = with_fault(&service, "stuff");
    launch(&mut service, "chat", &stuffing);
    let mut clients: Vec<Client> = (0..3).map(|i| Client::join(service.address, "guest", &format!("{i}"))).collect();
    commit(&service, &programs().b);
    for client in &mut clients {
        client.sent += 1;
        let heard = client.hear();
        assert_eq!((heard.number, heard.text.as_str()), (client.sent, "x"));
        client.round("and on");
    }
}

#[test]
fn what_a_successor_said_before_it_died_is_never_said_again() {
    let service = start_chat(&programs().a);
    let (mut clients, incumbent) = (Vec::new(), service.daemon_pid());
    for i in 0..3 {
        clients.push(Client::join(service.address, "guest", &format!("{i}")));
    }
    let upgrading = service.begin_upgrade(&with_fault(&service, "fleeting"), &[]);
    let successor = service.successor_of(incumbent);
    wait_until("the successor has everything", || (process_state(successor) == Some('T')).then_some(()));
    clients.iter_mut().for_each(|client| client.say("to whoever serves"));
    thaw(successor);
    let upgrade = upgrading.wait();
    assert_eq!(upgrade.result, "reverted", "{upgrade:?}");
    for client in &mut clients {
        assert_eq!(client.hear().text, "to whoever serves");
        client.socket.send(Message::text("and now?")).unwrap_or_default();
        let error = client.socket.read().unwrap_err();
        let ended = matches!(&error, Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))
            || matches!(&error, Error::Io(error) if error.kind() == ErrorKind::ConnectionReset);
        assert!(ended, "{error:?}");
    }
    assert_eq!(Client::connect(service.address).server(), (incumbent, "a".to_owned()));
}

#[test]
fn requests_and_frames_cut_at_every_byte_are_put_together_across_handoffs() {
    let service = start_chat(&programs().a);
    let size = bytes_of_a_session(0).len();
    let connect = |_| {
        let stream = TcpStream::connect(service.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let streams: Vec<TcpStream> = (0..=size).map(connect).collect();
    let send = |from: usize, to: usize| {
        for (cut, mut stream) in streams.iter().enumerate() {
            stream.write_all(&bytes_of_a_session(cut)[(cut + from).min(size)..(cut + to).min(size)]).unwrap();
        }
        // A later request was answered: what came before it was read.
        Client::connect(service.address).server();
    };
    for (cut, mut stream) in streams.iter().enumerate() {
        stream.write_all(&bytes_of_a_session(cut)[..cut]).unwrap();
    }
    Client::connect(service.address).server();
    commit(&service, &programs().b);
    send(0, 1);
    undone(&service, "unhealthy");
    send(1, 2);
    commit(&service, &programs().a);
    send(2, size);
    for (cut, stream) in streams.into_iter().enumerate() {
        check_session(stream, cut);
    }
    assert!(!service.stderr().contains("chat: "), "{}", service.stderr());
}

#[test]
fn replies_that_nobody_reads_yet_are_written_once_by_whoever_serves() {
    const MESSAGES: u64 = 2000;
    let service = start_chat(&programs().a);
    let mut client = Client::join(service.address, "slow", "slow");
    let said = |number: u64| format!("{number} {}", "x".repeat(8000));
    let stream = client.socket.get_ref().try_clone().unwrap();
    let first = client.sent + 1;
    let numbers = first..first + MESSAGES;
    let bytes: Vec<u8> = numbers.clone().flat_map(|n| text_frame(&said(n), Data::Text, true)).collect();
    let written = write_until_stalled(&service, &stream, &bytes);
    println!("stalled after {written} bytes");
    commit(&service, &programs().b);
    undone(&service, "unhealthy");
    commit(&service, &programs().a);
    let rest = thread::spawn(move || (&stream).write_all(&bytes[written..]).unwrap());
    for number in numbers {
        let heard = client.hear();
        assert_eq!((heard.number, heard.text), (number, said(number)));
    }
    rest.join().unwrap();
    client.sent += MESSAGES;
    client.round("and on");
    assert!(!service.stderr().contains("chat: "), "{}", service.stderr());
}

#[test]
fn a_state_that_makes_no_sense_costs_its_connection_and_no_other() {
    let mut service = Service::place();
    let garbling = with_fault(&service, "garble");
    launch(&mut service, "chat", &garbling);
    let mut clients: Vec<Client> = (0..50).map(|i| Client::join(service.address, "guest", &format!("{i}"))).collect();
    commit(&service, &programs().b);
    let lives_on =
        |client: &mut Client| client.socket.send(Message::text("/who")).is_ok() && client.socket.read().is_ok();
    assert_eq!(clients.iter_mut().map(lives_on).filter(|lives| *lives).count(), 10);
    assert_eq!(service.stderr().matches("a state that makes no sense").count(), 40, "{}", service.stderr());
    Client::connect(service.address).round("new ones are welcome");
}

#[test]
fn whoever_speaks_no_websocket_is_told_why() {
    let service = start_chat(&programs().a);
    let told = |bytes: &[u8]| {
        let mut client = Client::connect(service.address);
        client.socket.get_mut().write_all(bytes).unwrap();
        match client.socket.read().unwrap() {
            Message::Close(Some(close)) => u16::from(close.code),
            other => panic!("{other:?}"),
        }
    };
    let mut ping_in_parts = Frame::ping("p");
    ping_in_parts.header_mut().is_final = false;
    assert_eq!(told(b"\x81\x05Hello"), 1002, "no mask");
    assert_eq!(told(&text_frame("", Data::Continue, true)), 1002, "goes on with nothing");
    assert_eq!(
        told(&[text_frame("a", Data::Text, false), text_frame("b", Data::Text, true)].concat()),
        1002,
        "a new one within"
    );
    assert_eq!(told(&bytes_of(ping_in_parts)), 1002, "a ping in parts");
    assert_eq!(told(&text_frame("b", Data::Binary, true)), 1003);
    assert_eq!(told(&[0x81, 0x83, 0, 0, 0, 0, 0xed, 0xa0, 0x80]), 1007, "a surrogate");
    assert_eq!(told(&text_frame(&"x".repeat(8193), Data::Text, true)), 1009);
    let mut stream = TcpStream::connect(service.address).unwrap();
    let mut reply = String::new();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 426 ") && reply.contains("Sec-WebSocket-Version: 13"), "{reply}");
}

#[test]
fn who_is_there_at_the_end_is_told_to_go() {
    let mut service = start_chat(&programs().a);
    let mut clients: Vec<Client> = (0..20).map(|i| Client::join(service.address, "guest", &format!("{i}"))).collect();
    let stopping = thread::spawn(move || (service.stop(), service.stderr()));
    for client in &mut clients {
        let Message::Close(Some(close)) = client.socket.read().unwrap() else { panic!("no close frame") };
        assert_eq!(u16::from(close.code), 1001);
        assert!(matches!(client.socket.read(), Err(tungstenite::Error::ConnectionClosed)));
    }
    let (code, stderr) = stopping.join().unwrap();
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_client_sees_that_the_successor_hangs_up_while_its_incumbent_is_parked() {
    let service = start_chat(&programs().a);
    let mut stream = TcpStream::connect(service.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let upgrade = service.upgrade(&programs().b, &["--probation", "10m"]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    stream.write_all(b"Host: localhost\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 426 "), "{reply}");
}
