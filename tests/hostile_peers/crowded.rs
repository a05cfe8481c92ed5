//! Other processes of the same user have so many descriptors on the way that the kernel lets no others through.

use crate::supervisor::Scene;
use crate::support::copy::copy_program;
use crate::support::{Service, compile, library, wait_until};
use crate::transfer::offered;
use handoff::channel::{Channel, Incoming};
use handoff::protocol::Message;
use handoff::protocol::message::*;
use handoff::protocol::transfer::{Room, Taken};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A user who has nothing else on this machine; root has no such limit.
const UID: u32 = 54321;
/// Of the daemon; there are more on the way.
const DESCRIPTORS_MAX: u32 = 64;

/// A script that becomes this program, as a user without privilege, who owns the service's directories.
fn unprivileged(service: &Service, program: &Path, limit: &str) -> PathBuf {
    let name = program.file_name().unwrap().to_str().unwrap();
    // That user may not reach the build directory.
    let dir = service.path(&format!("{name}.d"));
    fs::create_dir(&dir).unwrap();
    let copy = dir.join(name);
    copy_program(program, &copy);
    copy_program(library(), dir.join("libhandoff.so.0"));
    let user = match nix::unistd::geteuid().is_root() {
        true => format!("setpriv --reuid={UID} --regid={UID} --clear-groups "),
        false => String::new(),
    };
    let script = dir.join(format!("{name}.sh"));
    fs::write(&script, format!("#!/bin/sh\n{limit}\nexec {user}{} \"$@\"\n", copy.display())).unwrap();
    for path in [service.dir.path(), &service.path("data"), &dir, &copy, &script] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        if nix::unistd::geteuid().is_root() {
            chown(path, Some(UID), Some(UID)).unwrap();
        }
    }
    script
}

/// Ends when it is dropped.
struct Crowd(Child);

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn crowd(service: &Service) -> Crowd {
    let program = compile("crowd", "ffi-tests/c/crowd.c", &[]);
    let script = unprivileged(service, &program, "");
    let child = Command::new(script).arg("300").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut crowd = Crowd(child);
    let mut line = String::new();
    BufReader::new(crowd.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "crowded\n");
    crowd
}

/// Until everything was sent, as a successor that takes it; how many connections that were.
fn take_all(id: handoff::protocol::HandoffId, scene: &mut Scene, transfer: &mut Channel) -> usize {
    let mut connections = 0;
    wait_until("Drained", || {
        while let Incoming::Message(message, fds, _) = transfer.receive().unwrap() {
            let batch = match message {
                Message::Connections(m) => {
                    connections += fds.len();
                    m.batch
                }
                Message::State(m) => m.batch,
                other => panic!("{other:?}"),
            };
            transfer.send(&Message::Taken(Taken { id, batch }), &[]).unwrap();
        }
        match scene.incumbent.session.receive().unwrap() {
            Incoming::Message(Message::Drained(_), ..) => Some(()),
            Incoming::Message(Message::Heartbeat(_), ..) | Incoming::Nothing => None,
            other => panic!("{other:?}"),
        }
    });
    connections
}

#[test]
fn a_transfer_waits_until_the_kernel_lets_it_through() {
    let program = compile("crowded-sessions", "ffi-tests/c/sessions.c", &[]);
    let mut scene =
        Scene::with_program(|service| unprivileged(service, &program, &format!("ulimit -n {DESCRIPTORS_MAX}")));
    let address = scene.listener.local_addr().unwrap();
    let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    for mut client in &clients {
        client.write_all(b"1\n").unwrap();
        assert!(client.read(&mut [0; 64]).unwrap() > 0);
    }
    let crowd = crowd(&scene.service);
    let room = Room { descriptors_max: 0, open_descriptors: 10 };
    let (id, mut transfer, mut child) = offered(&mut scene, Some(room));
    // It is in its drain, and alive, and can not go on.
    wait_until("a heartbeat", || match scene.incumbent.session.receive().unwrap() {
        Incoming::Message(Message::Heartbeat(_), ..) => Some(()),
        Incoming::Nothing => None,
        other => panic!("{other:?}"),
    });
    let early = transfer.receive().unwrap();
    assert!(matches!(early, Incoming::Nothing), "{early:?}");
    drop(crowd);
    assert_eq!(take_all(id, &mut scene, &mut transfer), clients.len());
    scene.incumbent.send(Message::SealRequest(SealRequest { id }));
    assert!(matches!(scene.incumbent.next(), Some(Message::SealComplete(_))));
    child.kill().unwrap();
    child.wait().unwrap();
}
