//! How a unit is run.

use std::ffi::OsString;
use std::time::Duration;

use super::unit::{Check, Command, Limit, Mode, Ready, Unit};
use crate::error::{Error, Result};
use crate::limits::START_PROBE;
use crate::service::unit::restart::Rules;
use crate::service::{ProcessSettings, Settings, Times};
use crate::supervisor::{self, ExecContext, ReadySign};
use crate::sys::spawn;

impl Command {
    /// As execve(2) gets it.
    pub fn argv(&self) -> Vec<OsString> {
        match self {
            Self::Argv(words) => words.iter().map(OsString::from).collect(),
            Self::Shell(line) => ["/bin/sh", "-c", line].map(OsString::from).into(),
        }
    }
}

impl Unit {
    /// How its service is run.
    ///
    /// # Errors
    /// [`Error::Invalid`]: it asks for something that can not be done here.
    pub fn settings(&self, name: &str) -> Result<Settings> {
        let readiness = self.readiness()?;
        let (mode, handoff) = match self.mode {
            Mode::Handoff(mode) if !self.oneshot => (mode, true),
            // Whoever gives a sign can be taken over as one that is replaced side by side.
            _ if readiness.is_some() => (supervisor::Mode::Overlap, false),
            _ => (supervisor::Mode::Exclusive, false),
        };
        Ok(Settings {
            name: name.to_owned(),
            argv: self.exec.argv(),
            data_dir: self.data_dir.clone(),
            restart: Rules { policy: self.restart, backoff: self.backoff, limit: self.restart_limit },
            start_timeout: Some(self.start_timeout),
            oneshot: self.oneshot,
            times: self.times(handoff),
            mode,
            handoff,
            readiness,
            health: self.probation.and(self.socket()),
            check: self.health.clone(),
            watchdog: self.watchdog,
            stop: self.stop.clone(),
            process: self.process()?,
            max_draining: self.max_draining,
            capture_stdout: true,
            log: self.log.clone(),
        })
    }

    fn process(&self) -> Result<ProcessSettings> {
        let limit = |(name, limit): (&&'static str, &Limit)| {
            let resource = spawn::Resource::named(name);
            let resource = resource.ok_or_else(|| Error::Invalid(format!("there is no limit '{name}' here")))?;
            Ok(spawn::Limit { resource, soft: limit.soft, hard: limit.hard })
        };
        let context = ExecContext {
            env_file: self.env_file.clone(),
            user: self.user.clone(),
            group: self.group.clone(),
            umask: self.umask,
            limits: self.rlimits.iter().map(limit).collect::<Result<_>>()?,
            oom_score_adj: self.oom_score_adj,
            no_new_privs: self.no_new_privs,
        };
        let env = self.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Ok(ProcessSettings {
            dir: self.dir.clone(),
            env,
            context,
            pre_start: self.pre_start.as_ref().map(Command::argv),
            post_stop: self.post_stop.as_ref().map(Command::argv),
        })
    }

    fn times(&self, handoff: bool) -> Times {
        // Nobody waits for the Hello of one that gives another sign, and says none.
        let hello = if handoff || self.ready == Ready::Linked { self.hello_timeout } else { START_PROBE };
        Times {
            deadline: Some(self.deadline),
            drain_grace: Some(self.drain_grace),
            ready: Some(self.ready_timeout),
            hello: Some(hello),
            probation: self.probation,
        }
    }

    /// Where it is asked whether it is well, if that is a socket.
    fn socket(&self) -> Option<supervisor::Health> {
        match self.health.as_ref().map(|health| &health.check) {
            Some(Check::Socket(socket)) => Some(socket.clone()),
            _ => None,
        }
    }

    fn readiness(&self) -> Result<Option<ReadySign>> {
        if self.oneshot {
            // Only its end counts; but another supervisor can take it over.
            return Ok(Some(ReadySign::Delay(Duration::ZERO)));
        }
        Ok(match &self.ready {
            Ready::Linked => None,
            Ready::Sign(sign) => Some(sign.clone()),
            Ready::Health => match self.socket() {
                Some(socket) => Some(ReadySign::Health(socket)),
                None if matches!(self.mode, Mode::None) => Some(ReadySign::Told),
                // Nobody could say which of two processes has answered.
                None => {
                    let what =
                        "ready = \"health\" with a command (health.exec) needs mode = \"none\"; or give health.url";
                    return Err(Error::Invalid(what.to_owned()));
                }
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::config::{Config, File};
    use nix::sys::signal::Signal;

    fn settings(keys: &str) -> Settings {
        let content = Ok(format!("[unit.a]\n{keys}\n").into_bytes());
        let path: std::sync::Arc<std::path::Path> = std::path::Path::new("units.toml").into();
        let config = Config::of(&[File { path, content }]);
        assert_eq!(config.faults, []);
        config.units["a"].settings("a").unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_run() {
        let plain = settings("exec = ['/bin/a', 'b c']");
        assert_eq!(plain.argv, ["/bin/a", "b c"]);
        assert_eq!((plain.mode, plain.handoff, &plain.readiness), (supervisor::Mode::Exclusive, true, &None));
        assert_eq!(
            (plain.start_timeout, plain.times.ready),
            (Some(Duration::from_secs(30)), Some(Duration::from_secs(60)))
        );
        let shell = settings("exec = 'exec a'\nshell = true\nmode = 'none'\nready = 'delay=2s'\nstart_timeout = '5s'");
        assert_eq!(shell.argv, ["/bin/sh", "-c", "exec a"]);
        assert_eq!((shell.handoff, shell.start_timeout), (false, Some(Duration::from_secs(5))));
        assert_eq!(shell.readiness, Some(ReadySign::Delay(Duration::from_secs(2))));
        let oneshot = settings("exec = ['a']\noneshot = true\nstop = ['INT 1s', 'KILL']");
        assert!(oneshot.oneshot && !oneshot.handoff && oneshot.readiness.is_some());
        assert_eq!(oneshot.stop.iter().map(|step| step.signal).collect::<Vec<_>>(), [Signal::SIGINT, Signal::SIGKILL]);
        let full = settings(
            "exec = ['a']\nshell = true\ndir = '/'\nenv = { A = '1' }\nenv_file = '/e'\nuser = 'u'\ngroup = '7'\numask = '0027'\n\
             rlimits = { nofile = '10:20', core = 'unlimited' }\nno_new_privs = true\noom_score_adj = -5\npre_start = ['p', '1']\n\
             post_stop = 'post'",
        );
        let ProcessSettings { dir, env, context, pre_start, post_stop } = full.process;
        assert_eq!((dir.unwrap(), env), ("/".into(), vec![("A".into(), "1".into())]));
        assert_eq!((pre_start.unwrap().len(), post_stop.unwrap()[2].clone()), (2, "post".into()));
        let limit = |name, soft, hard| spawn::Limit { resource: spawn::Resource::named(name).unwrap(), soft, hard };
        assert_eq!(context.limits, [limit("core", None, None), limit("nofile", Some(10), Some(20))]);
        assert_eq!(
            (context.user.unwrap(), context.group.unwrap(), context.umask),
            ("u".into(), "7".into(), Some(0o027))
        );
        assert_eq!(
            (context.env_file.unwrap(), context.no_new_privs, context.oom_score_adj),
            ("/e".into(), true, Some(-5))
        );
        assert!(crate::service::config::RLIMITS.iter().all(|name| spawn::Resource::named(name).is_some()));
    }
}
