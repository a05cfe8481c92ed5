//! Does something, waits until nothing is under way, and compares.

mod files;
mod settle;

use crate::check::Past;
use crate::model::{Model, Must};
use crate::plan::{self, Chance, Kind, with_dependents, with_needs};
use crate::support::fleet::Fleet;
use crate::support::{SIGKILL, lives, signal, wait_for_death, wait_until};
use crate::watch::Watch;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

const SIGUSR1: i32 = 10;

pub struct Run {
    seed: u64,
    chance: Chance,
    fleet: Fleet,
    model: Model,
    past: Past,
    watch: Watch,
    number: usize,
    /// For names and editions that no other one has.
    fresh: usize,
    told: Vec<String>,
    begun: Instant,
}

type Names = BTreeSet<String>;

fn one(name: &str) -> Names {
    Names::from([name.to_owned()])
}

impl Run {
    pub fn start(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let (units, targets) = plan::units(&mut chance);
        let fleet = Fleet::place();
        let watch = Watch::start(fleet.dir.path());
        let model = Model { units, targets, ..Model::default() };
        let mut run = Self {
            seed,
            chance,
            fleet,
            model,
            past: Past::default(),
            watch,
            number: 0,
            fresh: 0,
            told: Vec::new(),
            begun: Instant::now(),
        };
        run.write_units();
        run.allow(&Names::new());
        run.fleet.launch();
        assert!(!run.fleet.log().contains("units.toml:"), "{}", run.fleet.log());
        let all = run.model.units.keys().cloned().collect();
        run.settle("up", &all);
        run
    }

    fn write_units(&self) {
        self.fleet.configure(&self.file(&self.model.units));
    }

    fn file(&self, units: &plan::Units) -> String {
        plan::file(units, &self.model.targets, |name, unit| {
            let mut lines = self.fleet.acts(name, &unit.words);
            if unit.asked {
                let argv = ["test", "!", "-e", self.sick(name).to_str().unwrap()].map(str::to_owned);
                lines += &format!("health = {{ exec = {argv:?}, interval = \"200ms\", retries = 2 }}\n");
            }
            lines
        })
    }

    /// The file with which a unit is not well.
    fn sick(&self, name: &str) -> PathBuf {
        self.fleet.path(&format!("{name}.sick"))
    }

    /// One operation, by chance.
    pub fn one(&mut self) {
        self.number += 1;
        match self.chance.below(100) {
            0..14 => self.stop(),
            14..32 => self.start_some(),
            32..44 => self.restart(),
            44..55 => self.kill_main(),
            55..58 => self.sicken(),
            58..72 => self.exit_main(),
            72..76 => self.kill_helper(),
            76..80 => self.upgrade(),
            80..84 => self.edit(),
            84..88 => self.add(),
            88..91 => self.remove(),
            91..93 => self.rename(),
            93..94 => self.fault(),
            94..96 => self.signal_by_command(),
            96..97 => self.self_upgrade(),
            _ => self.kill_supervisor(),
        }
    }

    /// Everything ends, and nobody is left.
    pub fn end(mut self) {
        self.fleet.run("shutdown", &[]).expect(0, &[]);
        assert_eq!(self.fleet.wait_for_end(), Some(0));
        assert_eq!(self.fleet.actors(), []);
        let sockets: Vec<u64> = crate::support::fleet::listening().into_iter().map(|(_, inode)| inode).collect();
        let left = self.past.found.sockets.values().filter(|inode| sockets.contains(inode)).count();
        assert_eq!(left, 0, "sockets that listen after the end");
        let seen = self.watch.stop();
        assert!(seen.is_empty(), "SEED={}: {seen:?}\n{}", self.seed, self.told.join("\n"));
        // Of that many at least one of each.
        let all = ["must not run beside it", "unhealthy: ", "upgrade committed", "stops: ", "self-upgrade done"];
        let missing: Vec<_> = all.into_iter().filter(|text| !self.fleet.log().contains(text)).collect();
        assert!(missing.is_empty() || self.number < 1000, "SEED={}: never seen: {missing:?}", self.seed);
    }

    // ---- who

    fn any(&mut self, is: impl Fn(&Self, &str) -> bool) -> Option<String> {
        let names: Vec<String> = self.model.units.keys().filter(|name| is(self, name)).cloned().collect();
        self.chance.pick(&names).cloned()
    }

    /// A target.
    fn any_target(&mut self) -> Option<(&'static str, Names)> {
        let targets: Vec<(&'static str, Names)> =
            self.model.targets.iter().map(|(name, (units, _))| (*name, units.clone())).collect();
        self.chance.pick(&targets).cloned()
    }

    fn is_replaced(&self, name: &str) -> bool {
        self.model.units[name].kind == Kind::Replaced
    }

    /// Whether a start of it ends well, when all has settled.
    fn comes(&self, name: &str) -> bool {
        match self.model.musts()[name] {
            Must::Rest => false,
            Must::Unless(_) => self.runs(name),
            Must::Run | Must::Done | Must::AsBefore => true,
        }
    }

    /// One that is only down for a moment gives way to nobody.
    fn assert_back(&self, name: &str) {
        let is_back = self.runs(name) || !matches!(self.model.musts()[name], Must::Unless(_));
        assert!(is_back, "SEED={}, operation {}: another one runs instead of {name}", self.seed, self.number);
    }

    fn runs(&self, name: &str) -> bool {
        self.past.found.pids.contains_key(name)
    }

    /// Whoever may start when this one does: what it needs, and who was blocked by any of that. Those that run go on.
    fn comes_with(&self, name: &str, wanted_before: &Names) -> Names {
        let changed = wanted_before.symmetric_difference(&self.model.wanted()).cloned().collect();
        let all = with_needs(&self.model.units, &one(name)).union(&changed).cloned().collect();
        let mut all = with_dependents(&self.model.units, &all);
        all.retain(|name| !self.runs(name));
        all
    }

    // ---- what

    fn stop(&mut self) {
        let (mut list, mut names) = (Vec::new(), Names::new());
        let target = self.any_target().filter(|(_, units)| !units.is_empty());
        if let Some((name, units)) = target.filter(|_| self.chance.percent(8)) {
            list.push(name.to_owned());
            names = units;
        }
        let count = if list.is_empty() { 1 + usize::from(self.chance.percent(20)) } else { 0 };
        for name in (0..count).filter_map(|_| self.any(|_, _| true)).collect::<Vec<_>>() {
            names.insert(name.clone());
            list.push(name);
        }
        self.model.stop(&names);
        let wanted = self.model.wanted();
        let roots = self.past.found.pids.keys().filter(|name| !wanted.contains(*name));
        let touched = self.model.stopped_with(&roots.chain(&names).cloned().collect());
        self.model.running.retain(|name, _| !touched.contains(name));
        self.allow(&Names::new());
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        self.fleet.run("stop", &list).expect(0, &[]);
        self.settle(&format!("stop {list:?}"), &touched);
    }

    fn start_some(&mut self) {
        let target = self.any_target().filter(|(_, units)| units.iter().any(|name| !self.runs(name)));
        let (name, names) = match target.filter(|_| self.chance.percent(15)) {
            Some((name, units)) => (name.to_owned(), units),
            None => {
                let Some(name) = self.any(|run, name| !run.runs(name)) else { return };
                (name.clone(), one(&name))
            }
        };
        let before = self.model.wanted();
        self.model.start(&names);
        let touched = names.iter().flat_map(|name| self.comes_with(name, &before)).collect();
        self.allow(&Names::new());
        let answer = self.fleet.run("start", &[&name]);
        self.told.push(format!("start {name} ends with {}: {}", answer.code, answer.stderr));
        self.settle(&format!("start {name}"), &touched);
        let comes = names.iter().all(|name| self.comes(name));
        assert_eq!(answer.code, i32::from(!comes), "SEED={}: start {name}: {answer:?}", self.seed);
    }

    fn restart(&mut self) {
        let Some(name) = self.any(|_, _| true) else { return };
        let (runs, before) = (self.runs(&name), self.model.wanted());
        let handoff = self.is_replaced(&name) && runs;
        let starts = self.past.found.starts.get(&name).copied().unwrap_or_default();
        self.model.ended.remove(&name);
        let mut touched = one(&name);
        if !handoff {
            self.model.start(&one(&name));
            touched.extend(self.comes_with(&name, &before));
            // Those that require it are stopped with it, if there is anything to stop.
            if runs {
                let stopped = self.model.stopped_with(&one(&name));
                self.model.running.retain(|name, _| !stopped.contains(name));
                touched.extend(stopped);
            }
        }
        self.allow(if handoff { &touched } else { const { &Names::new() } });
        let answer = self.fleet.run("restart", &[&name]);
        self.settle(&format!("restart {name}"), &touched);
        let comes = self.comes(&name);
        assert_eq!(answer.code, i32::from(!comes), "SEED={}: restart {name}: {answer:?}", self.seed);
        if comes {
            let more = self.past.found.starts[&name] - starts;
            assert_eq!(more, 1, "SEED={}: restart {name} has started it so often", self.seed);
        }
        if runs {
            self.assert_back(&name);
        }
    }

    /// A daemon dies by a signal, and the supervisor was not asked.
    fn kill_main(&mut self) {
        let Some(name) = self.any(Self::runs) else { return };
        self.crash(&name, -SIGKILL);
    }

    /// A daemon ends as it was told to.
    fn exit_main(&mut self) {
        let Some(name) = self.any(Self::runs) else { return };
        let status = [0, 0, 1, 3, 7, 77, 255][self.chance.below(7)];
        self.crash(&name, status);
    }

    fn crash(&mut self, name: &str, status: i32) {
        let pid = self.past.found.pids[name];
        self.allow_crash();
        self.bring_down(name, pid, status);
        self.model.on_end(name, status);
        let mut touched = one(name);
        // Those that wait for it may start, or not any more.
        touched.extend(with_dependents(&self.model.units, &one(name)).into_iter().filter(|name| !self.runs(name)));
        self.settle(&format!("{name} (process {pid}) ends by {status}"), &touched);
        self.assert_back(name);
    }

    fn bring_down(&self, name: &str, pid: i32, status: i32) {
        if status < 0 {
            signal(pid, -status);
        } else {
            fs::write(self.fleet.path(&format!("{name}.exit")), status.to_string()).unwrap();
            signal(pid, SIGUSR1);
        }
        wait_for_death(pid);
    }

    /// Its answers are bad until it is given up, and good again then.
    fn sicken(&mut self) {
        let Some(name) = self.any(|run, name| run.runs(name) && run.model.units[name].asked) else { return };
        let pid = self.past.found.pids[&name];
        self.allow_crash();
        fs::write(self.sick(&name), "").unwrap();
        let again = self.model.units[&name].restart != "never";
        wait_until(&format!("{name} is given up"), || {
            let is_unwell = || self.fleet.unit(&name).is_some_and(|unit| unit["health"]["state"] == "unhealthy");
            if again { !lives(pid) } else { is_unwell() }.then_some(())
        });
        fs::remove_file(self.sick(&name)).unwrap();
        let mut touched = with_dependents(&self.model.units, &one(&name));
        touched.retain(|name| !self.runs(name));
        if again {
            touched.insert(name.clone());
            self.model.causes.insert(name.clone(), "unhealthy".to_owned());
        }
        self.settle(&format!("{name} (process {pid}) ends by its bad answers"), &touched);
        self.assert_back(&name);
    }

    /// One of those that a daemon has forked: nobody's business.
    fn kill_helper(&mut self) {
        let helpers: Vec<i32> =
            self.fleet.actors().into_iter().filter(|actor| actor.helper).map(|actor| actor.pid).collect();
        let Some(pid) = self.chance.pick(&helpers).copied() else { return };
        self.allow(&Names::new());
        signal(pid, SIGKILL);
        wait_for_death(pid);
        self.settle(&format!("helper {pid} is killed"), &Names::new());
    }

    fn upgrade(&mut self) {
        let Some(name) = self.any(|run, name| run.runs(name)) else { return };
        let replaced = self.is_replaced(&name);
        let touched = if replaced { one(&name) } else { Names::new() };
        self.allow(&touched);
        let answer = self.fleet.run("upgrade", &[&name]);
        if replaced {
            self.model.causes.remove(&name);
        }
        self.settle(&format!("upgrade {name}"), &touched);
        assert_eq!(answer.code, if replaced { 0 } else { 13 }, "SEED={}: upgrade {name}: {answer:?}", self.seed);
    }

    /// `handoff kill`: what the daemon makes of it is its own matter.
    fn signal_by_command(&mut self) {
        let Some(name) = self.any(|run, name| run.runs(name)) else { return };
        let pid = self.past.found.pids[&name];
        self.allow_crash();
        self.fleet.run("kill", &[&name, "KILL"]).expect(0, &[]);
        wait_for_death(pid);
        self.model.on_end(&name, -SIGKILL);
        self.settle(&format!("handoff kill {name} KILL"), &one(&name));
        self.assert_back(&name);
    }

    // ---- the supervisor

    /// Nobody notices.
    fn self_upgrade(&mut self) {
        self.allow(&Names::new());
        self.write_units();
        let pid = self.fleet.pid();
        self.fleet.run("self-upgrade", &[]).expect(0, &[]);
        self.settle("self-upgrade", &Names::new());
        assert_eq!(self.fleet.pid(), pid);
    }

    fn kill_supervisor(&mut self) {
        self.allow_crash();
        self.write_units();
        self.fleet.kill_supervisor();
        let mut touched = Names::new();
        let victim = self.any(Self::runs).filter(|_| self.chance.percent(50));
        if let Some(name) = &victim {
            self.bring_down(name, self.past.found.pids[name], -SIGKILL);
            touched.insert(name.clone());
            self.model.on_unseen_end(name);
            self.model.running.remove(name); // it is started as a unit that has not run: with all that it requires
        }
        // What no process has does not outlive the supervisor: a socket.
        let alive: Names =
            self.fleet.actors().into_iter().filter(|actor| !actor.helper).map(|actor| actor.unit).collect();
        self.past.found.sockets.retain(|name, _| alive.contains(name));
        self.past.adopted = self.fleet.actors().into_iter().map(|actor| actor.pid).collect();
        // Who had lost what it requires, and now is down itself, waits for it.
        touched.extend(with_dependents(&self.model.units, &touched));
        touched.retain(|name| !self.runs(name) || Some(name) == victim.as_ref());
        self.model.causes.clear();
        self.fleet.launch();
        self.settle(&format!("kill -9 of the supervisor, and of {victim:?}"), &touched);
    }
}
