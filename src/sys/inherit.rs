//! What the next program of this process gets from the present one (execve(2)): data as serde has it, descriptors by their numbers,
//! and long bytes in a place of their own.
//!
//! A type that lives across it derives `Serialize` and `Deserialize`, and names the modules below for what is no plain data. Within
//! [`save`] a descriptor is written as its number, which is thereby on the list of those that stay open. After [`begin_restore`] it is
//! read as a duplicate: whatever goes wrong then, the descriptors themselves are still there for the program before.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::fd::duplicate;

/// What is under way in this thread.
#[derive(Debug, Default)]
enum Work {
    #[default]
    None,
    Saving(Saved),
    Restoring(Restoring),
}

/// What was saved beside the data.
#[derive(Debug, Default)]
pub struct Saved {
    /// The descriptors that the next program needs.
    pub fds: BTreeSet<RawFd>,
    /// All long bytes, one after the other.
    pub bytes: Vec<u8>,
    /// Where in memory what several have together is, and its number.
    shared: BTreeMap<usize, usize>,
}

#[derive(Debug)]
struct Restoring {
    bytes: Vec<u8>,
    /// Stands for every descriptor: this is only a trial.
    stand_in: Option<File>,
    /// Files that several have together.
    files: BTreeMap<RawFd, Arc<File>>,
    /// The rest of that, by its number.
    shared: BTreeMap<usize, Arc<dyn Any + Send + Sync>>,
}

thread_local! {
    static WORK: RefCell<Work> = const { RefCell::new(Work::None) };
}

/// Runs `write`, and collects what does not go through serde.
pub fn save<T>(write: impl FnOnce() -> T) -> (T, Saved) {
    WORK.set(Work::Saving(Saved::default()));
    let written = write();
    match WORK.take() {
        Work::Saving(saved) => (written, saved),
        _ => (written, Saved::default()),
    }
}

/// From now on, until [`end_restore`], this thread reads what was saved with these bytes. On a `trial` every descriptor is one of
/// /dev/null.
pub fn begin_restore(bytes: Vec<u8>, trial: bool) -> io::Result<()> {
    let stand_in = trial.then(|| File::open("/dev/null")).transpose()?;
    WORK.set(Work::Restoring(Restoring { bytes, stand_in, files: BTreeMap::new(), shared: BTreeMap::new() }));
    Ok(())
}

/// What was read is this program's own.
pub fn end_restore() {
    WORK.set(Work::None);
}

/// Whether what was read is only a copy so far, of what the program before may go on with. Whoever cleans up in a `Drop` must not then.
pub fn is_restoring() -> bool {
    cfg!(feature = "program") && WORK.with_borrow(|work| matches!(work, Work::Restoring(_)))
}

fn note(number: RawFd) -> bool {
    WORK.with_borrow_mut(|work| match work {
        Work::Saving(saved) => {
            saved.fds.insert(number);
            true
        }
        _ => false,
    })
}

fn take(number: RawFd) -> io::Result<OwnedFd> {
    WORK.with_borrow(|work| match work {
        Work::Restoring(Restoring { stand_in: Some(file), .. }) => file.as_fd().try_clone_to_owned(),
        Work::Restoring(_) => duplicate(number).map_err(|error| {
            io::Error::new(error.kind(), format!("descriptor {number} of the program before: {error}"))
        }),
        _ => Err(io::Error::other("nothing is being restored")),
    })
}

fn take_shared(number: RawFd) -> io::Result<Arc<File>> {
    let known = WORK.with_borrow(|work| match work {
        Work::Restoring(restoring) => restoring.files.get(&number).cloned(),
        _ => None,
    });
    if let Some(file) = known {
        return Ok(file);
    }
    let file = Arc::new(File::from(take(number)?));
    WORK.with_borrow_mut(|work| {
        if let Work::Restoring(restoring) = work {
            restoring.files.insert(number, file.clone());
        }
    });
    Ok(file)
}

/// For what is one descriptor.
pub mod fd {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    /// Its number.
    pub fn serialize<S: Serializer>(fd: &impl AsFd, serializer: S) -> Result<S::Ok, S::Error> {
        let number = fd.as_fd().as_raw_fd();
        match note(number) {
            true => serializer.serialize_i32(number),
            false => Err(ser::Error::custom("a descriptor can only be saved")),
        }
    }

    /// A duplicate of it.
    pub fn deserialize<'de, T: From<OwnedFd>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        take(RawFd::deserialize(deserializer)?).map(T::from).map_err(de::Error::custom)
    }
}

/// For what may be one.
pub mod optional_fd {
    use super::*;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[derive(serde::Serialize)]
    struct One<'a, T: AsFd>(#[serde(with = "super::fd")] &'a T);

    /// Its number.
    pub fn serialize<S: Serializer>(fd: &Option<impl AsFd>, serializer: S) -> Result<S::Ok, S::Error> {
        fd.as_ref().map(One).serialize(serializer)
    }

    /// A duplicate of it.
    pub fn deserialize<'de, T: From<OwnedFd>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        let number = Option::<RawFd>::deserialize(deserializer)?;
        number.map(take).transpose().map(|fd| fd.map(T::from)).map_err(de::Error::custom)
    }
}

/// For several.
pub mod fds {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[derive(serde::Serialize)]
    struct One<'a>(#[serde(with = "super::fd")] &'a OwnedFd);

    /// Their numbers.
    pub fn serialize<S: Serializer>(fds: &[OwnedFd], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(fds.iter().map(One))
    }

    /// A duplicate of each.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OwnedFd>, D::Error> {
        let numbers = Vec::<RawFd>::deserialize(deserializer)?;
        numbers.into_iter().map(|number| take(number).map_err(de::Error::custom)).collect()
    }
}

/// For a file that several have together.
pub mod shared_file {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Its number.
    pub fn serialize<S: Serializer>(file: &Arc<File>, serializer: S) -> Result<S::Ok, S::Error> {
        super::fd::serialize(file.as_ref(), serializer)
    }

    /// The same for all that had it together.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<File>, D::Error> {
        take_shared(RawFd::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// For what several have together: it is saved once.
pub mod shared {
    use super::*;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    #[derive(Serialize, Deserialize)]
    enum Place<T> {
        /// Its number, and it itself.
        First(usize, T),
        Again(usize),
    }

    /// It, or the number that it has got before.
    pub fn serialize<T: Serialize, S: Serializer>(it: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
        let address = Arc::as_ptr(it).addr();
        let place = WORK.with_borrow_mut(|work| match work {
            Work::Saving(Saved { shared, .. }) => {
                let new = shared.len();
                let number = *shared.entry(address).or_insert(new);
                Some(if number == new { Place::First(number, &**it) } else { Place::Again(number) })
            }
            _ => None,
        });
        place.ok_or_else(|| ser::Error::custom("what is shared can only be saved"))?.serialize(serializer)
    }

    /// The same for all that had it together.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Arc<T>, D::Error>
    where
        T: Deserialize<'de> + Send + Sync + 'static,
        D: Deserializer<'de>,
    {
        let found = match Place::<T>::deserialize(deserializer)? {
            Place::First(number, it) => {
                let it = Arc::new(it);
                WORK.with_borrow_mut(|work| {
                    if let Work::Restoring(restoring) = work {
                        restoring.shared.insert(number, it.clone());
                    }
                });
                Ok(it)
            }
            Place::Again(number) => {
                let known = WORK.with_borrow(|work| match work {
                    Work::Restoring(restoring) => restoring.shared.get(&number).cloned(),
                    _ => None,
                });
                known.and_then(|it| it.downcast::<T>().ok()).ok_or(number)
            }
        };
        found.map_err(|number| de::Error::custom(format!("nothing of this kind has the number {number}")))
    }
}

/// For what may be that.
pub mod optional_shared {
    use super::*;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(serde::Serialize)]
    struct One<'a, T: Serialize>(#[serde(with = "super::shared")] &'a Arc<T>);

    #[derive(serde::Deserialize)]
    #[serde(bound = "T: Deserialize<'de> + Send + Sync + 'static")]
    struct Own<T>(#[serde(with = "super::shared")] Arc<T>);

    /// It, or the number that it has got before.
    pub fn serialize<T: Serialize, S: Serializer>(it: &Option<Arc<T>>, serializer: S) -> Result<S::Ok, S::Error> {
        it.as_ref().map(One).serialize(serializer)
    }

    /// The same for all that had it together.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<Arc<T>>, D::Error>
    where
        T: Deserialize<'de> + Send + Sync + 'static,
        D: Deserializer<'de>,
    {
        Ok(Option::<Own<T>>::deserialize(deserializer)?.map(|own| own.0))
    }
}

/// For bytes, of which there may be many.
pub mod bytes {
    use super::*;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    /// Where they are, and how many.
    pub fn serialize<S: Serializer, T>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        for<'a> &'a T: IntoIterator<Item = &'a u8>,
    {
        let place = WORK.with_borrow_mut(|work| match work {
            Work::Saving(saved) => {
                let begin = saved.bytes.len();
                saved.bytes.extend(bytes);
                Some((begin, saved.bytes.len() - begin))
            }
            _ => None,
        });
        place.ok_or_else(|| ser::Error::custom("bytes can only be saved"))?.serialize(serializer)
    }

    /// These bytes.
    pub fn deserialize<'de, T: From<Vec<u8>>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let (begin, len) = <(usize, usize)>::deserialize(deserializer)?;
        let found = WORK.with_borrow(|work| match work {
            Work::Restoring(restoring) => {
                restoring.bytes.get(begin..begin.saturating_add(len)).map(|bytes| T::from(bytes.to_vec()))
            }
            _ => None,
        });
        found.ok_or_else(|| de::Error::custom(format!("there are no {len} bytes at {begin}")))
    }
}

/// For a map whose keys are no words, as JSON wants them.
pub mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    /// Key and value, one after the other.
    pub fn serialize<S: Serializer>(
        map: &BTreeMap<impl Serialize, impl Serialize>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    /// The same.
    pub fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Vec::<(K, V)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}

/// For a signal.
pub mod signal {
    use nix::sys::signal::Signal;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Its number.
    pub fn serialize<S: Serializer>(signal: &Signal, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(*signal as i32)
    }

    /// The signal of this number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Signal, D::Error> {
        Signal::try_from(i32::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What [`word`] is for: serde takes a reference for one into what is read.
pub type Word = &'static str;

/// For one of the words that this program has as literals. One that is read stays for the life of the program, which is read into once.
pub mod word {
    use serde::{Deserialize, Deserializer, Serializer};

    /// The word.
    pub fn serialize<S: Serializer>(word: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word)
    }

    /// The word.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
        Ok(String::deserialize(deserializer)?.leak())
    }
}

/// For what is made anew by each program.
pub mod epoll {
    use nix::sys::epoll::{Epoll, EpollCreateFlags};
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Nothing.
    pub fn serialize<S: Serializer>(_: &Epoll, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }

    /// One that watches nothing yet.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoll, D::Error> {
        <()>::deserialize(deserializer)?;
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};
    use std::io::{Read, Write};

    #[derive(Serialize, Deserialize)]
    struct Thing {
        #[serde(with = "super::fd")]
        pipe: OwnedFd,
        #[serde(with = "super::optional_fd")]
        none: Option<File>,
        #[serde(with = "super::shared_file")]
        one: Arc<File>,
        #[serde(with = "super::shared_file")]
        other: Arc<File>,
        #[serde(with = "super::shared")]
        text: Arc<String>,
        #[serde(with = "super::optional_shared")]
        same: Option<Arc<String>>,
        #[serde(with = "super::bytes")]
        bytes: Vec<u8>,
        #[serde(with = "super::word")]
        word: &'static str,
    }

    #[test]
    fn what_is_saved_is_restored_and_what_is_only_tried_changes_nothing() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let (number, one) = (read.as_raw_fd(), Arc::new(File::open("/dev/zero").unwrap()));
        let text = Arc::new("text".to_owned());
        let (other, same, bytes) = (one.clone(), Some(text.clone()), vec![0, 255, b'x']);
        let thing = Thing { pipe: read, none: None, one, other, text, same, bytes, word: "word" };
        let (json, saved) = save(|| serde_json::to_string(&thing).unwrap());
        let json: &'static str = json.leak(); // words are not copied out of it
        assert_eq!((saved.fds.len(), saved.fds.contains(&number), saved.bytes.len()), (2, true, 3));
        assert!(serde_json::to_string(&thing).is_err(), "nobody would keep it open");

        for trial in [true, false] {
            begin_restore(saved.bytes.clone(), trial).unwrap();
            assert!(is_restoring());
            let again: Thing = serde_json::from_str(json).unwrap();
            end_restore();
            assert!(Arc::ptr_eq(&again.one, &again.other) && again.none.is_none());
            assert!(*again.text == "text" && Arc::ptr_eq(&again.text, &again.same.unwrap()));
            assert_eq!((again.bytes, again.word), (vec![0, 255, b'x'], "word"));
            if !trial {
                File::from(write.try_clone().unwrap()).write_all(b"y").unwrap();
                let mut byte = [0];
                File::from(again.pipe).read_exact(&mut byte).unwrap();
                assert_eq!(byte, *b"y");
            }
        }
        assert!(!is_restoring());
        begin_restore(Vec::new(), true).unwrap();
        assert!(serde_json::from_str::<Thing>(json).is_err(), "its bytes are not there");
        end_restore();
    }
}
