//! What runs, on file, for a supervisor that comes after a crash.
//!
//! One line for each `key=value`. Written under another name and renamed, so that it is there as a whole or not at all; never
//! fsync'ed, because after a power loss there are no processes to find.

use super::leaving::Term;
use super::spec::SpawnSpec;
#[cfg(feature = "program")]
use super::tree::Lineage;
use crate::error::{Error, Result};
use crate::sys::clock::boot_id;
use crate::sys::crash;
use crate::sys::fd::{file_context, write_private};
use crate::sys::pidfd::{Pidfd, start_time};
use nix::fcntl::OFlag;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FIRST_LINE: &str = "handoff-journal 1";
/// The smallest that there are.
const PAGE_BYTES: usize = 4096;

/// One process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// In clock ticks since boot: a pid may be reused.
    pub(super) start_time: u64,
}

impl Identity {
    /// A child that is not reaped yet.
    pub(super) fn of(pid: i32) -> Option<Self> {
        start_time(pid).ok().map(|start_time| Self { pid, start_time })
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, start_time) = text.split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }

    /// Exactly this process, if it lives.
    pub(super) fn open(self) -> Option<Pidfd> {
        // The order matters: the descriptor first, then the comparison.
        let pidfd = Pidfd::open(self.pid).ok()?;
        (start_time(self.pid).is_ok_and(|now| now == self.start_time) && !pidfd.is_dead()).then_some(pidfd)
    }
}

/// What the journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) generation: u64,
    pub(super) incumbent: Option<Identity>,
    /// Those that were its main process before, and end with it.
    pub(super) former: Vec<Identity>,
    /// What it was started from, if that is not what the service's command says.
    pub(super) program: Option<PathBuf>,
    /// The handoff that is open.
    pub(super) handoff: Option<OpenHandoff>,
    /// Those that have retired, but had not exited.
    pub(super) leaving: Vec<Retired>,
    /// The incumbent serves, and does not link the library.
    pub(super) unlinked: bool,
    /// A process that was started beside it, and has not replaced it.
    pub(super) joining: Option<Identity>,
    /// The inodes and the names of the listeners, for daemons that can not send them.
    pub(super) listeners: Vec<(u64, String)>,
    /// The inode of the pipe in which the incumbent, which is not ready yet, will say that it is.
    #[cfg(feature = "program")]
    pub(super) ready_pipe: Option<u64>,
    /// By which its processes are known, and those that they have left.
    #[cfg(feature = "program")]
    pub(super) lineage: Option<Lineage>,
}

/// A process that will never serve again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retired {
    pub(super) identity: Identity,
    pub(super) generation: u64,
    pub(super) term: Term,
}

impl Retired {
    fn line(&self) -> String {
        let Self { identity: Identity { pid, start_time }, generation, term } = self;
        let Term { drains, since_ns, until_ns } = term;
        format!("leaving={pid} {start_time} {generation} {} {since_ns} {until_ns}", u8::from(*drains))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let identity = Identity { pid: words.next()?.parse().ok()?, start_time: words.next()?.parse().ok()? };
        let mut number = || words.next()?.parse::<u64>().ok();
        let (generation, drains) = (number()?, number()? != 0);
        let term = Term { drains, since_ns: number()?, until_ns: number()? };
        Some(Self { identity, generation, term })
    }
}

impl Entry {
    /// What tells it from the others of a handoff.
    pub(super) fn kind(&self) -> &'static str {
        if self.handoff.is_some() { "open" } else { "idle" }
    }

    /// A process of the service that lives.
    #[cfg(feature = "program")]
    pub(super) fn alive(&self) -> Option<Identity> {
        let successor = self.handoff.as_ref().map(|handoff| handoff.successor);
        self.incumbent.into_iter().chain(successor).find(|process| process.open().is_some())
    }

    /// From what the incumbent would be started again.
    pub(super) fn program_of(&self, spec: &Arc<SpawnSpec>) -> Arc<SpawnSpec> {
        with_program(spec, self.program.as_deref())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenHandoff {
    pub(super) id: u64,
    pub(super) page: PathBuf,
    pub(super) successor: Identity,
    pub(super) program: Option<PathBuf>,
    /// How long the incumbent parks behind the commit.
    pub(super) park_ns: u64,
}

impl OpenHandoff {
    /// From what the successor would be started again.
    pub(super) fn program_of(&self, spec: &Arc<SpawnSpec>) -> Arc<SpawnSpec> {
        with_program(spec, self.program.as_deref())
    }
}

fn with_program(spec: &Arc<SpawnSpec>, program: Option<&Path>) -> Arc<SpawnSpec> {
    program.map_or_else(|| spec.clone(), |program| Arc::new(spec.as_ref().clone().binary(program)))
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Journal {
    path: PathBuf,
    temporary: PathBuf,
    boot_id: String,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        Self { path, temporary: temporary.into(), boot_id: boot_id().to_owned() }
    }

    /// The directory of the journal and of the decision pages.
    pub(super) fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The service's name, if nobody gave it one.
    pub(super) fn service(&self) -> Option<String> {
        self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned())
    }

    pub(super) fn write(&self, service: &str, build_id: &[u8], entry: &Entry) -> Result<()> {
        let text = self.text(service, build_id, entry);
        let written = write_private(&self.temporary, text.as_bytes()).and_then(|()| {
            crash::point('S', format_args!("before rename {} journal", entry.kind()));
            fs::rename(&self.temporary, &self.path)
        });
        let written = written.or_else(|error| {
            let _ = fs::remove_file(&self.temporary);
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.overwrite(&text).map_err(|_| error),
                _ => Err(error),
            }
        });
        written.map_err(|error| {
            Error::system("no journal")(file_context(error, format_args!("cannot write {}", self.path.display())))
        })
    }

    /// Without room for another file: in the page that this one has. One write(2) within a page is whole also if we are killed, and after a
    /// loss of power nothing of it is of use.
    fn overwrite(&self, text: &str) -> io::Result<()> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().write(true).custom_flags(flags.bits()).open(&self.path)?;
        let before = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if text.len().max(before) > PAGE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().max(before), b'\n');
        file.write_all_at(&bytes, 0)
    }

    /// Whether something was written that is not removed yet.
    pub(super) fn exists(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// An error leaves a file of no meaning.
    #[cfg(feature = "program")]
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }

    fn text(&self, service: &str, build_id: &[u8], entry: &Entry) -> String {
        let mut text = format!("{FIRST_LINE}\nboot_id={}\nservice={service}\nbuild_id=", self.boot_id);
        for byte in build_id {
            let _ = write!(text, "{byte:02x}");
        }
        let _ = writeln!(text, "\ngeneration={}", entry.generation);
        if let Some(Identity { pid, start_time }) = entry.incumbent {
            let _ = writeln!(text, "incumbent={pid} {start_time}");
        }
        for Identity { pid, start_time } in &entry.former {
            let _ = writeln!(text, "former={pid} {start_time}");
        }
        for retired in &entry.leaving {
            let _ = writeln!(text, "{}", retired.line());
        }
        if entry.unlinked {
            text.push_str("unlinked=yes\n");
        }
        if let Some(Identity { pid, start_time }) = entry.joining {
            let _ = writeln!(text, "joining={pid} {start_time}");
        }
        for (inode, name) in &entry.listeners {
            let _ = writeln!(text, "listener={inode} {name}");
        }
        #[cfg(feature = "program")]
        if let Some(inode) = entry.ready_pipe {
            let _ = writeln!(text, "ready_pipe={inode}");
        }
        #[cfg(feature = "program")]
        if let Some(lineage) = &entry.lineage {
            let _ = writeln!(text, "lineage={}", lineage.text());
        }
        write_program(&mut text, "program", entry.program.as_deref());
        if let Some(OpenHandoff { id, page, successor, program, park_ns }) = &entry.handoff {
            let Identity { pid, start_time } = successor;
            let page = page.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(text, "handoff={id}\npage={page}\nsuccessor={pid} {start_time}\npark_ns={park_ns}");
            write_program(&mut text, "successor_program", program.as_deref());
        }
        text
    }

    /// What was written in this boot; None if nothing was.
    pub(super) fn read(&self) -> Result<Option<Entry>> {
        let mut text = String::new();
        // What is there may be no file: then nobody waits for it.
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&self.path);
        match file.and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::system(format!("cannot read {}", self.path.display()))(error)),
        };
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(Error::Invalid(format!("{} is no journal of this version", self.path.display())));
        }
        let value = |key: &str| text.lines().find_map(|line| value_of(line, key));
        if value("boot_id") != Some(&self.boot_id) {
            return Ok(None);
        }
        let number = |key| value(key).and_then(|text| text.parse().ok());
        let identity = |key| value(key).and_then(Identity::parse);
        let leaving = text.lines().filter_map(|line| Retired::parse(value_of(line, "leaving")?)).collect();
        let handoff = number("handoff").zip(value("page")).zip(identity("successor"));
        let program = |key| value(key).map(PathBuf::from);
        let handoff = handoff.map(|((id, page), successor)| {
            let (page, park_ns) = (self.dir().join(page), number("park_ns").unwrap_or_default());
            OpenHandoff { id, page, successor, program: program("successor_program"), park_ns }
        });
        let generation = number("generation").unwrap_or_default();
        let listener = |line: &str| {
            let (inode, name) = value_of(line, "listener")?.split_once(' ')?;
            Some((inode.parse().ok()?, name.to_owned()))
        };
        Ok(Some(Entry {
            generation,
            incumbent: identity("incumbent"),
            former: text.lines().filter_map(|line| Identity::parse(value_of(line, "former")?)).collect(),
            program: program("program"),
            handoff,
            leaving,
            unlinked: value("unlinked") == Some("yes"),
            joining: identity("joining"),
            listeners: text.lines().filter_map(listener).collect(),
            #[cfg(feature = "program")]
            ready_pipe: number("ready_pipe"),
            #[cfg(feature = "program")]
            lineage: value("lineage").and_then(Lineage::parse),
        }))
    }
}

fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix('=')
}

/// A path that is no line of text is left out: then the service's command counts.
fn write_program(text: &mut String, key: &str, program: Option<&Path>) {
    let path = program.and_then(Path::to_str).filter(|path| !path.contains('\n'));
    if let Some(path) = path {
        let _ = writeln!(text, "{key}={path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().join("kv.journal"));
        assert_eq!(journal.read().unwrap(), None);
        assert_eq!(journal.service().unwrap(), "kv");
        let own = Identity::of(std::process::id() as i32).unwrap();
        let page = dir.path().join("kv.17.page");
        let open = OpenHandoff { id: 17, page, successor: own, program: Some("/new/kv".into()), park_ns: 5 };
        for handoff in [None, Some(open)] {
            let term = Term { drains: true, since_ns: 5, until_ns: u64::MAX };
            let retired = Retired { identity: own, generation: 2, term };
            let leaving = vec![retired, Retired { identity: Identity { pid: 7, ..own }, ..retired }];
            let (unlinked, joining) = (handoff.is_none(), handoff.is_none().then_some(own));
            let listeners = vec![(4711, "kv".to_owned()), (4712, "a name".to_owned())];
            let (incumbent, program) = (Some(own), Some("/old/kv".into()));
            let former = vec![own, Identity { pid: 8, ..own }];
            let entry = Entry {
                generation: 3,
                incumbent,
                former,
                program,
                handoff,
                leaving,
                unlinked,
                joining,
                listeners,
                #[cfg(feature = "program")]
                ready_pipe: Some(4713),
                #[cfg(feature = "program")]
                lineage: Some(Lineage::default()),
            };
            journal.write("kv", b"\x01\xfe", &entry).unwrap();
            assert_eq!(journal.read().unwrap(), Some(entry));
        }
        let text = fs::read_to_string(dir.path().join("kv.journal")).unwrap();
        assert!(text.contains("\nbuild_id=01fe\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let mode = fs::metadata(dir.path().join("kv.journal")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "by what is in it processes of a service are known");

        // Another boot: its processes are gone.
        fs::write(dir.path().join("kv.journal"), text.replace(&journal.boot_id, "another")).unwrap();
        assert_eq!(journal.read().unwrap(), None);
        fs::write(dir.path().join("kv.journal"), "nonsense").unwrap();
        assert!(journal.read().is_err());
        // In the place of what is there, which is longer or shorter.
        for (pid, name) in [(1, "kv".repeat(100)), (2, "x".to_owned()), (3, "y".repeat(300))] {
            let incumbent = Some(Identity { pid, start_time: 7 });
            let entry = Entry { incumbent, listeners: vec![(5, name)], ..Entry::default() };
            journal.overwrite(&journal.text("kv", b"", &entry)).unwrap();
            assert_eq!(journal.read().unwrap(), Some(entry));
        }
        let error = journal.overwrite(&"x".repeat(PAGE_BYTES + 1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(Journal::new(dir.path().join("none/kv.journal")).write("kv", b"", &Entry::default()).is_err());
    }

    #[test]
    fn a_pid_alone_is_no_identity() {
        let own = Identity::of(std::process::id() as i32).unwrap();
        assert!(own.open().is_some());
        assert!(Identity { start_time: own.start_time + 1, ..own }.open().is_none());
        assert!(Identity { pid: i32::MAX, ..own }.open().is_none());
    }
}
