//! The files in which each supervisor is told of the same services.

use crate::bed::{Bed, Kind, Unit};
use crate::support;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// service.c, compiled.
pub fn service() -> &'static Path {
    static SERVICE: OnceLock<PathBuf> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let service = support::compile("service", "benches/supervisors/service.c", &["-O2", "-Wl,--as-needed"]);
        fs::canonicalize(service).expect("a path")
    })
}

pub fn write(bed: &Bed) {
    match bed.kind {
        Kind::Handoff => handoff(bed),
        Kind::Supervisord => supervisord(bed),
        Kind::Runit | Kind::S6 => directories(bed),
    }
}

fn handoff(bed: &Bed) {
    let logs = bed.place.path("logs");
    let mut text = String::new();
    for unit in &bed.units {
        let mut argv = vec![service().to_str().expect("a path")];
        argv.extend(unit.words.split_whitespace());
        for name in unit.instances() {
            let patience = unit.patience_s;
            writeln!(text, "[unit.{name}]\nexec = {argv:?}\nmode = 'none'\nready = 'delay=0ms'").unwrap();
            writeln!(text, "stop = ['TERM {patience}s', 'KILL']").unwrap();
            writeln!(text, "restart = '{}'", if unit.again { "always" } else { "never" }).unwrap();
            if unit.logged {
                writeln!(text, "log = {{ dir = {logs:?}, file_bytes = '4GiB' }}").unwrap();
            }
            if let Some(port) = unit.port {
                writeln!(text, "listen = ['{name}=127.0.0.1:{port}']").unwrap();
            }
        }
    }
    let all: Vec<String> = bed.units.iter().flat_map(Unit::instances).collect();
    writeln!(text, "[target.all]\nunits = {all:?}").unwrap();
    fs::write(bed.place.path("units.toml"), text).expect("a file");
}

fn supervisord(bed: &Bed) {
    let dir = bed.place.path("");
    let dir = dir.to_str().expect("a path");
    let mut text = format!(
        "[supervisord]\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={dir}pid\nchildlogdir={dir}\nminfds=10000\n\
         [unix_http_server]\nfile={dir}socket\n[supervisorctl]\nserverurl=unix://{dir}socket\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
    );
    for unit in &bed.units {
        let (name, count, words, patience) = (unit.name, unit.count, &unit.words, unit.patience_s);
        let process = if count == 1 { "%(program_name)s" } else { "%(program_name)s-%(process_num)d" };
        let log = if unit.logged { format!("{dir}logs/{process}.log") } else { "NONE".to_owned() };
        let service = service().display();
        let again = unit.again;
        write!(
            text,
            "[program:{name}]\ncommand={service} {words}\nnumprocs={count}\nprocess_name={process}\nstartsecs=0\n\
             autorestart={again}\nstopwaitsecs={patience}\nstopasgroup=true\nkillasgroup=true\n\
             stdout_logfile={log}\nstdout_logfile_maxbytes=0\nstderr_logfile=NONE\n"
        )
        .unwrap();
    }
    fs::write(bed.place.path("supervisord.conf"), text).expect("a file");
}

/// For runit and s6.
fn directories(bed: &Bed) {
    for unit in &bed.units {
        for name in unit.instances() {
            let dir = bed.place.path("services").join(&name);
            fs::create_dir_all(&dir).expect("a directory");
            if unit.words.is_empty() {
                symlink(service(), dir.join("run")).expect("a link"); // no shell that would have to start first
            } else {
                script(&dir.join("run"), &format!("exec {} {}", service().display(), unit.words));
            }
            // What s6 does after a stop, too; of runit the command does it.
            fs::write(dir.join("timeout-kill"), format!("{}\n", unit.patience_s * 1000)).expect("a file");
            if unit.words == "exits" {
                script(&dir.join("finish"), "echo \"$1 0\" >> \"$BENCH_DIR/statuses\"");
            }
            if unit.logged {
                logger(bed, &name, &dir.join("log"));
            }
        }
    }
}

fn logger(bed: &Bed, name: &str, dir: &Path) {
    let logs = bed.place.path("logs").join(name);
    fs::create_dir_all(dir).expect("a directory");
    fs::create_dir_all(&logs).expect("a directory");
    let logs_text = logs.display();
    if bed.kind == Kind::Runit {
        fs::write(logs.join("config"), "s0\n").expect("a file"); // never rotated
        script(&dir.join("run"), &format!("exec svlogd {logs_text}"));
    } else {
        script(&dir.join("run"), &format!("exec s6-log n20 s268435455 {logs_text}"));
    }
}

fn script(path: &Path, line: &str) {
    fs::write(path, format!("#!/bin/sh\n{line}\n")).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}
