use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::sys::seqpacket::Received;

fn names(dir: &Path) -> Vec<OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn it_is_private_listens_before_it_is_seen_and_is_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    let prepared = ControlListener::prepare(&path).unwrap();
    assert!(!path.exists());
    let mode = fs::metadata(&prepared.temporary).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    Seqpacket::connect(&prepared.temporary).unwrap();
    drop(prepared);
    assert!(names(dir.path()).is_empty());

    let mut prepared = ControlListener::prepare(&path).unwrap();
    let listener = prepared.publish().unwrap();
    assert!(prepared.publish().is_err());
    drop(prepared);
    assert_eq!(names(dir.path()), ["c"]);
    assert!(listener.is_ours());
    assert!(listener.unlink_if_ours().unwrap());
    assert!(!listener.unlink_if_ours().unwrap());
}

#[test]
fn accept_names_the_peer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    let listener = ControlListener::prepare(&path).unwrap().publish().unwrap();
    assert!(listener.accept().unwrap().is_none());
    let client = Seqpacket::connect(&path).unwrap();
    client.send(b"early", &[]).unwrap();
    let (server, peer) = listener.accept().unwrap().unwrap();
    assert_eq!(peer.pid, std::process::id() as i32);
    let Received::Packet(packet) = server.receive(&mut [0; 8]).unwrap() else {
        panic!("what was sent before accept is lost");
    };
    assert_eq!(packet.sender.unwrap(), peer);
    assert_eq!(living_owner(&path).unwrap().unwrap(), peer);
}

#[test]
fn a_successor_takes_the_path_over_and_the_old_one_leaves_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    let old = ControlListener::prepare(&path).unwrap().publish().unwrap();
    let new = ControlListener::prepare(&path).unwrap().publish().unwrap();
    assert!(!old.is_ours());
    assert!(new.is_ours());
    assert!(!old.unlink_if_ours().unwrap());
    drop(old);
    Seqpacket::connect(&path).unwrap();
    assert!(new.accept().unwrap().is_some());
}

#[test]
fn foreign_things_are_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    fs::write(&path, "precious").unwrap();
    let error = ControlListener::prepare(&path).unwrap_err();
    assert!(matches!(error, ControlError::NotASocket { .. }), "{error}");
    fs::remove_file(&path).unwrap();

    let mut prepared = ControlListener::prepare(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(prepared.publish().unwrap_err(), ControlError::NotASocket { .. }));
    fs::remove_file(&path).unwrap();
    prepared.publish().expect("a failure can be tried again");

    if geteuid().is_root() {
        std::os::unix::fs::lchown(&path, Some(4711), None).unwrap();
        let error = ControlListener::prepare(&path).unwrap_err();
        assert!(matches!(error, ControlError::OwnedBy { uid: 4711, .. }), "{error}");
    }
}

#[test]
fn bad_paths_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = ControlListener::prepare(&dir.path().join("no/c")).unwrap_err();
    assert!(matches!(error, ControlError::NoDirectory { .. }), "{error}");
    let error = ControlListener::prepare(&dir.path().join("x".repeat(100))).unwrap_err();
    assert!(matches!(error, ControlError::TooLong { max: 107, .. }), "{error}");
    assert_eq!(living_owner(&dir.path().join("c")).unwrap(), None);
}

#[test]
fn names_of_the_dead_go_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    let alive = ControlListener::prepare(&path).unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    for name in [format!("c.{dead}-0"), "c.x-0".into(), "c.gate".into(), format!("d.{dead}-0")] {
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(name)).unwrap());
    }
    fs::write(dir.path().join(format!("c.{dead}-1")), "no socket").unwrap();
    remove_dead_temporaries(&path);
    let left = names(dir.path());
    assert!(!left.contains(&format!("c.{dead}-0").into()) && left.len() == 5, "{left:?}");
    let last = format!("c.{dead}-{}", TEMPORARIES - 1);
    drop(std::os::unix::net::UnixListener::bind(dir.path().join(&last)).unwrap());
    remove_temporaries(&path, dead.cast_signed());
    assert_eq!(names(dir.path()), left, "and its regular file stays");
    drop(alive);
}

#[test]
fn a_name_left_over_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    let prepared = ControlListener::prepare(&path).unwrap();
    let name = prepared.temporary.to_str().unwrap();
    let (stem, number) = name.rsplit_once('-').unwrap();
    let number: u32 = number.parse().unwrap();
    for next in number + 1..number + 20 {
        fs::write(format!("{stem}-{next}"), "").unwrap();
    }
    ControlListener::prepare(&path).unwrap();
}
