//! Questions over the sockets of supervisors, without a command in between.

use crate::bed::Bed;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// `handoff status` of all.
pub fn handoff(bed: &Bed) -> io::Result<String> {
    let mut stream = connect(&bed.place.path("run/kv.sock"))?;
    stream.write_all(b"{\"handoff\":1,\"id\":1,\"method\":\"status\"}\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.contains("\"result\"") { Ok(line) } else { Err(io::Error::other(line)) }
}

/// A method without arguments of supervisord's XML-RPC.
pub fn supervisord(bed: &Bed, method: &str) -> io::Result<String> {
    let body = format!("<?xml version='1.0'?><methodCall><methodName>supervisor.{method}</methodName></methodCall>");
    let mut stream = connect(&bed.place.path("socket"))?;
    let length = body.len();
    write!(stream, "POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.contains("<methodResponse>") { Ok(answer) } else { Err(io::Error::other(answer)) }
}
