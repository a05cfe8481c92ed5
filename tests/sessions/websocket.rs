//! A client of examples-c/chat.c, which counts: no message may be missing, come twice, or out of its turn.

use crate::support::PATIENCE;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

/// What a client has heard.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    pub from: String,
    /// The sender's number of the message.
    pub number: u64,
    pub text: String,
}

pub struct Client {
    pub socket: WebSocket<TcpStream>,
    pub sent: u64,
    heard: u64,
    /// The last number of each sender whose messages come to this client without a break.
    last: BTreeMap<String, u64>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{address}/"), stream).unwrap();
        Self { socket, sent: 0, heard: 0, last: BTreeMap::new() }
    }

    /// One whose handshake was made by hand, on this connection.
    pub fn upgraded(stream: TcpStream) -> Self {
        let socket = WebSocket::from_raw_socket(stream, Role::Client, None);
        Self { socket, sent: 0, heard: 0, last: BTreeMap::new() }
    }

    /// Connects, and goes into a room under this name.
    pub fn join(address: SocketAddr, nick: &str, room: &str) -> Self {
        let mut client = Self::connect(address);
        client.command(&format!("/nick {nick}"));
        client.command(&format!("/join {room}"));
        client
    }

    pub fn say(&mut self, text: impl Into<String>) {
        self.sent += 1;
        self.socket.send(Message::text(text.into())).unwrap();
    }

    /// The same, in two frames.
    pub fn say_in_parts(&mut self, first: &str, second: &str) {
        self.sent += 1;
        let frames = [(first, Data::Text, false), (second, Data::Continue, true)];
        for (text, data, last) in frames {
            let frame = Frame::message(text.to_owned(), OpCode::Data(data), last);
            self.socket.send(Message::Frame(frame)).unwrap();
        }
    }

    /// The next message, which must be the next one in every respect.
    pub fn hear(&mut self) -> Heard {
        let message = self.socket.read().unwrap();
        let Message::Text(text) = message else { panic!("after {} messages: {message:?}", self.heard) };
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        let [n, from, number, text] = words[..] else { panic!("not a message: {text}") };
        let number = number.parse().unwrap();
        self.heard += 1;
        assert_eq!(n.parse(), Ok(self.heard), "{from}, {number}: {text}");
        if from != "*"
            && let Some(last) = self.last.insert(from.to_owned(), number)
        {
            assert_eq!(number, last + 1, "of {from}");
        }
        Heard { from: from.to_owned(), number, text: text.to_owned() }
    }

    /// What the server itself answers.
    pub fn command(&mut self, command: &str) -> String {
        self.say(command);
        let heard = self.hear();
        assert_eq!((heard.from.as_str(), heard.number), ("*", self.sent), "{heard:?}");
        heard.text
    }

    /// Which process and build serves this connection.
    pub fn server(&mut self) -> (i32, String) {
        let answer = self.command("/who");
        let words: Vec<&str> = answer.rsplitn(3, ' ').collect();
        (words[1].parse().unwrap(), words[0].to_owned())
    }

    /// Hears its own message again, alone in its room.
    pub fn round(&mut self, text: &str) {
        self.say(text);
        let heard = self.hear();
        assert_eq!((heard.number, heard.text.as_str()), (self.sent, text));
    }
}

/// The bytes of a client's frame.
pub fn bytes_of(mut frame: Frame) -> Vec<u8> {
    frame.header_mut().mask = Some([0x37, 0xfa, 0x21, 0x3d]);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).unwrap();
    bytes
}

/// The same of a text, or of a part of one.
pub fn text_frame(text: &str, data: Data, last: bool) -> Vec<u8> {
    bytes_of(Frame::message(text.to_owned(), OpCode::Data(data), last))
}
