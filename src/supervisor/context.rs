//! As whom, and with what, the program of a service is executed.

use crate::error::{Error, Result};
use crate::limits::ENV_FILE_BYTES_MAX;
use crate::supervisor::spec::{Resolved, check_variable};
use crate::sys::fd::{file_context, read_bounded};
use crate::sys::spawn::{Account, Attributes, Limit, ONLY_ROOT};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// What is said of it by names, which are looked up at each start; None is that of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExecContext {
    /// A file with variables, which is read at each start.
    pub env_file: Option<PathBuf>,
    /// A user, by name or number (passwd(5)). It has its own groups then, and its `HOME`, `USER`, `LOGNAME` and `SHELL`.
    pub user: Option<String>,
    /// A group, by name or number (group(5)).
    pub group: Option<String>,
    /// See [`Attributes::umask`].
    pub umask: Option<u32>,
    /// See [`Attributes::limits`].
    pub limits: Vec<Limit>,
    /// See [`Attributes::oom_score_adj`].
    pub oom_score_adj: Option<i32>,
    /// See [`Attributes::no_new_privs`].
    pub no_new_privs: bool,
}

impl ExecContext {
    /// Looks up names, and reads the file. A user database that is not on this machine may take its time.
    pub(crate) fn resolve(&self) -> Result<Resolved> {
        let (account, mut env) = self.account()?;
        if let Some(path) = &self.env_file {
            env.extend(read_variables(path)?);
        }
        let attributes = Attributes {
            account,
            umask: self.umask,
            limits: self.limits.clone(),
            oom_score_adj: self.oom_score_adj,
            no_new_privs: self.no_new_privs,
        };
        Ok(Resolved { attributes, env })
    }

    fn account(&self) -> Result<(Account, Vec<(OsString, OsString)>)> {
        let group = self.group.as_deref().map(gid_of).transpose()?;
        let Some(name) = &self.user else {
            let gid = group.filter(|gid| Uid::effective().is_root() || *gid != Gid::effective().as_raw());
            return Ok((Account { uid: None, gid, groups: None }, Vec::new()));
        };
        let (uid, user) = look_up_user(name)?;
        let gid = match (group, &user) {
            (Some(gid), _) => gid,
            (None, Some(user)) => user.gid.as_raw(),
            (None, None) => {
                let text = format!(
                    "user {uid} is not in the user database, so nobody knows its group; write group = \"NUMBER\""
                );
                return Err(Error::Invalid(text));
            }
        };
        let groups = user.as_ref().map_or(Ok(vec![gid]), |user| groups_of(user, gid))?;
        let variables = variables_of(uid, user.as_ref());
        // Who is no other one needs no right for it.
        if !Uid::effective().is_root() && (uid, gid) == (Uid::effective().as_raw(), Gid::effective().as_raw()) {
            return Ok((Account::default(), variables));
        }
        Ok((Account { uid: Some(uid), gid: Some(gid), groups: Some(groups) }, variables))
    }
}

fn look_up_user(name: &str) -> Result<(u32, Option<User>)> {
    let failed = |errno: nix::Error| Error::system(format!("cannot look up user '{name}'"))(errno.into());
    if let Ok(uid) = name.parse::<u32>() {
        return match uid {
            u32::MAX => Err(Error::Invalid(format!("there can be no user {uid}; write another number"))),
            _ => Ok((uid, User::from_uid(Uid::from_raw(uid)).map_err(failed)?)),
        };
    }
    let user = User::from_name(name).map_err(failed)?;
    let none = || Error::Invalid(format!("there is no user '{name}' on this machine; create it, or write another one"));
    user.map(|user| (user.uid.as_raw(), Some(user))).ok_or_else(none)
}

fn gid_of(name: &str) -> Result<u32> {
    match name.parse::<u32>() {
        Ok(u32::MAX) => return Err(Error::Invalid(format!("there can be no group {name}; write another number"))),
        Ok(gid) => return Ok(gid),
        Err(_) => {}
    }
    let failed = |errno: nix::Error| Error::system(format!("cannot look up group '{name}'"))(errno.into());
    let group = Group::from_name(name).map_err(failed)?;
    let none =
        || Error::Invalid(format!("there is no group '{name}' on this machine; create it, or write another one"));
    group.map(|group| group.gid.as_raw()).ok_or_else(none)
}

/// The groups in which a user is, and this one (getgrouplist(3)).
fn groups_of(user: &User, gid: u32) -> Result<Vec<u32>> {
    let failed = |error| Error::system(format!("cannot look up the groups of user '{}'", user.name))(error);
    let name = CString::new(user.name.as_bytes()).map_err(|error| failed(error.into()))?;
    let groups = getgrouplist(&name, Gid::from_raw(gid)).map_err(|errno| failed(errno.into()))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// What a login would set. A user without an entry has no home, and must not get that of the supervisor.
fn variables_of(uid: u32, user: Option<&User>) -> Vec<(OsString, OsString)> {
    let number = uid.to_string();
    let name = user.map_or(number.as_str(), |user| user.name.as_str());
    let home = user.map_or(Path::new("/"), |user| user.dir.as_path());
    let shell = user.map_or(Path::new("/bin/sh"), |user| user.shell.as_path());
    let values =
        [("HOME", home.as_os_str()), ("USER", name.as_ref()), ("LOGNAME", name.as_ref()), ("SHELL", shell.as_os_str())];
    values.into_iter().map(|(name, value)| (name.into(), value.to_owned())).collect()
}

/// The variables of a file: NAME=VALUE in a line, the value as it is, or between two quotes. `#` begins a line that is left out.
fn read_variables(path: &Path) -> Result<Vec<(OsString, OsString)>> {
    let bytes = read_bounded(path, ENV_FILE_BYTES_MAX)
        .map_err(Error::system(format!("cannot read env_file {}", path.display())))?;
    let mut variables = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |why: String| Error::Invalid(format!("env_file {}:{}: {why}", path.display(), index + 1));
        match variable(line.trim_ascii()) {
            Ok(found) => variables.extend(found),
            Err(why) => return Err(wrong(why)),
        }
    }
    Ok(variables)
}

fn variable(line: &[u8]) -> std::result::Result<Option<(OsString, OsString)>, String> {
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
        return Err("there is no '='; write NAME=VALUE".to_owned());
    };
    let (name, value) = (OsStr::from_bytes(&line[..equals]), &line[equals + 1..]);
    check_variable(name).map_err(|error| error.to_string())?;
    if name.as_bytes().iter().any(u8::is_ascii_whitespace) {
        return Err(format!("{name:?} can not be the name of a variable; write NAME=VALUE"));
    }
    if value.contains(&0) {
        return Err("the value holds a NUL byte; remove it".to_owned());
    }
    let value = match value.first() {
        Some(quote @ (b'"' | b'\'')) => match value[1..].strip_suffix(&[*quote]) {
            Some(value) => value,
            None => {
                return Err(
                    "the value begins with a quote, and does not end with it; remove it, or close it".to_owned()
                );
            }
        },
        _ => value,
    };
    Ok(Some((name.to_owned(), OsStr::from_bytes(value).to_owned())))
}

/// Makes a directory for the control path of a daemon that runs as another user, who must be able to search the one above
/// it; ours has nothing that others may open. `in_use`: a daemon of this service lives.
pub(super) fn make_own_dir(dir: &Path, account: &Account, in_use: bool) -> Result<()> {
    let Some(above) = dir.parent() else { return Ok(()) };
    let uid = account.uid.unwrap_or_else(|| Uid::effective().as_raw());
    let failed = |what: &str| {
        let what = format!("cannot {what} {}", dir.display());
        move |error: io::Error| Error::system("no directory for the control path")(file_context(error, what))
    };
    match fs::symlink_metadata(dir) {
        Ok(found) if found.uid() == uid => return Ok(()),
        Ok(found) if in_use => {
            return Err(Error::Invalid(format!(
                "the successor would run as user {uid}, the incumbent runs as user {}, so it could not undo the handoff; stop the \
                 service and start it again",
                found.uid()
            )));
        }
        Ok(_) => fs::remove_dir_all(dir).map_err(failed("remove"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    DirBuilder::new().mode(0o700).create(dir).map_err(failed("create"))?;
    if account.uid.is_none() {
        return Ok(());
    }
    let mode = fs::metadata(above).map_err(failed("reach"))?.permissions().mode();
    fs::set_permissions(above, PermissionsExt::from_mode(mode | 0o011)).map_err(failed("open the way to"))?;
    lchown(dir, Some(uid), account.gid).map_err(|error| {
        let _ = fs::remove_dir(dir);
        match error.kind() {
            io::ErrorKind::PermissionDenied => Error::Invalid(format!("user {uid}: {ONLY_ROOT}")),
            _ => failed("give away")(error),
        }
    })
}
