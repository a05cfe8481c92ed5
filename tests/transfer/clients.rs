//! Clients of `ffi-tests/c/sessions.c`, which notice every byte that is lost or comes twice.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

/// One connection, and what is known of it.
pub struct Client {
    stream: TcpStream,
    /// The last line that was sent, the last that was answered, and the last of the server's own numbers.
    sent: u64,
    answered: u64,
    heard: u64,
    input: Vec<u8>,
    /// What could not be written at once.
    output: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, sent: 0, answered: 0, heard: 0, input: Vec::new(), output: Vec::new() }
    }

    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Sends lines, in pieces that end anywhere, and reads what is there.
    pub fn turn(&mut self, lines: u64) {
        for _ in 0..lines {
            self.sent += 1;
            self.output.extend_from_slice(format!("{}\n", self.sent).as_bytes());
        }
        // The last byte waits for the next turn: what the server has read mostly ends within a line.
        let piece = self.output.len().saturating_sub(usize::from(lines > 0));
        match self.stream.write(&self.output[..piece]) {
            Ok(written) => drop(self.output.drain(..written)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "a connection was cut: {error}"),
        }
        self.hear().unwrap_or_else(|why| panic!("{why}"));
    }

    /// Whether one more line is answered, or else the connection is closed. What is lost or comes twice is a failure also here.
    pub fn survives(&mut self) -> bool {
        self.sent += 1;
        self.output.extend_from_slice(format!("{}\n", self.sent).as_bytes());
        crate::support::wait_until("an answer or an end", || match self.stream.write(&self.output) {
            Ok(written) => {
                self.output.drain(..written);
                match self.hear() {
                    Ok(()) => (self.answered == self.sent).then_some(true),
                    Err(_) => Some(false),
                }
            }
            Err(error) => (error.kind() != ErrorKind::WouldBlock).then_some(false),
        })
    }

    /// Whether the server has closed the connection; what it had said before is dropped.
    pub fn has_ended(&self) -> bool {
        let mut buffer = [0; 4096];
        matches!((&self.stream).read(&mut buffer), Ok(0))
    }

    fn hear(&mut self) -> Result<(), String> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(format!("a connection was closed after {} of {} lines", self.answered, self.sent)),
            Ok(read) => self.input.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("a connection was cut: {error}")),
        }
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            let (number, echo) = line.trim_end().split_once(' ').unwrap_or_else(|| panic!("not a line: {line:?}"));
            self.heard += 1;
            assert_eq!(number.parse(), Ok(self.heard), "lost or twice: {line:?}");
            if echo != "0" {
                self.answered += 1;
                assert_eq!(echo.parse(), Ok(self.answered), "lost or twice: {line:?}");
            }
        }
        Ok(())
    }

    /// Reads; whether the server has answered everything.
    fn is_answered(&mut self) -> bool {
        self.turn(0);
        self.answered == self.sent && self.output.is_empty()
    }
}

/// Until the server has answered everything.
pub fn finish(clients: &mut [Client]) {
    let mut left: Vec<&mut Client> = clients.iter_mut().collect();
    crate::support::wait_until("the last answers", || {
        left.retain_mut(|client| !client.is_answered());
        left.is_empty().then_some(())
    });
}

/// Clients on threads of their own, which never pause for long.
pub struct Load {
    stop: Arc<AtomicBool>,
    lines: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(address: SocketAddr, threads: usize, clients: usize) -> Self {
        let (stop, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let run = |_| {
            let (stop, lines) = (Arc::clone(&stop), Arc::clone(&lines));
            let mut clients: Vec<_> = (0..clients).map(|_| Client::connect(address)).collect();
            spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    for client in &mut clients {
                        let before = client.answered();
                        client.turn(if client.sent - before < 500 { 5 } else { 0 });
                        lines.fetch_add(client.answered() - before, Ordering::AcqRel);
                    }
                    sleep(Duration::from_millis(1));
                }
                finish(&mut clients);
            })
        };
        let threads = (0..threads).map(run).collect();
        Self { stop, lines, threads }
    }

    /// Until the clients have got so many more answers.
    pub fn wait_for(&self, more: u64) {
        let until = self.lines.load(Ordering::Acquire) + more;
        crate::support::wait_until("answers", || (self.lines.load(Ordering::Acquire) >= until).then_some(()));
    }

    /// Every line has been answered, once.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}
