//! What the applications of O and N have done.

use crate::config::Mutant;
use crate::daemon::Work;
use crate::events::Event;
use crate::world::{Pid, World};
use handoff::protocol::incumbent::{self, Hook};
use handoff::protocol::message::Readiness;
use handoff::protocol::successor;

impl World {
    pub fn work_done(&mut self, i: Pid, event: Event) {
        let disk = self.disk;
        if self.see(i).work == Some(Work::Cold) {
            self.take_lock(i);
        }
        let Some(work) = self.daemon(i).work.take() else { return };
        let bad = matches!(event, Event::DoneBadly(_));
        match work {
            Work::Cancelled(Some(hook)) => self.daemon(i).run_hook(hook),
            Work::Cancelled(None) => {}
            Work::Hook(_) if bad => self.incumbent_takes(i, incumbent::Input::HookFailed("full".into())),
            Work::Hook(Hook::Drain | Hook::Leave) => {
                let input = incumbent::Input::Drained { connections_open: 0, accept_stopped_ns: 0 };
                self.incumbent_takes(i, input);
            }
            Work::Hook(Hook::Seal) => {
                let daemon = self.daemon(i);
                daemon.has_data = false;
                let sealed = incumbent::Input::Sealed(vec![u64::from(daemon.view)]);
                self.incumbent_takes(i, sealed);
            }
            Work::Hook(Hook::Resume { .. }) => {
                self.resume_connection(i);
                let daemon = self.daemon(i);
                (daemon.has_data, daemon.serves, daemon.view) = (true, true, disk);
                self.incumbent_takes(i, incumbent::Input::Resumed);
            }
            Work::Cold => {
                self.check_grab();
                self.control = Some(i);
                let daemon = self.daemon(i);
                (daemon.has_data, daemon.serves, daemon.view) = (true, true, disk);
                let served = incumbent::Input::Served { now_ns: 0, control: Ok(()) };
                self.incumbent_takes(i, served);
            }
            Work::Warm => self.successor_takes(i, successor::Input::Warmed),
            Work::Open => {
                let view = disk - u8::from(matches!(event, Event::DoneOld(_)));
                let daemon = self.daemon(i);
                (daemon.has_data, daemon.view, daemon.unable) = (true, view, bad || view < disk);
                if self.config.is(Mutant::ShowsEarly) {
                    self.show_connection(i);
                }
                let readiness = Readiness { unhealthy: bad, revisions: vec![u64::from(view)], ..Readiness::default() };
                self.successor_takes(i, successor::Input::Opened(readiness));
            }
            Work::Serve => {
                let page = self.see(i).page.expect("a page");
                self.pages[usize::from(page)].serving = true;
                let input = successor::Input::Served { committed_ns: 0, control: Ok(()) };
                self.successor_takes(i, input);
            }
        }
    }
}
