//! Each attribute, as the process itself sees it.

use super::harness::{Place, wait_until};
use super::{is_root, open_to_others, shut_down, up, written};
use nix::unistd::{Group, User, chown};
use std::collections::BTreeMap;
use std::fs;

/// Tells what it is, and lives on.
const TELLER: &str = r#"#!/bin/sh
exec > "$1"
echo "uid=$(id -u) gid=$(id -g) groups=$(id -G)"
echo "umask=$(umask)"
echo "nofile=$(ulimit -Sn):$(ulimit -Hn)"
echo "core=$(ulimit -Sc):$(ulimit -Hc)"
echo "stack=$(ulimit -Ss):$(ulimit -Hs)"
echo "new_privs=$(grep NoNewPrivs /proc/self/status | tr -cd 0-9)"
echo "oom=$(cat /proc/self/oom_score_adj)"
echo "dir=$(pwd)"
echo "A=$A B=$B C=$C"
echo "HOME=$HOME USER=$USER LOGNAME=$LOGNAME SHELL=$SHELL"
echo "stdin=$(readlink /proc/self/fd/0) session=$(cut -d' ' -f6 /proc/$$/stat) pid=$$"
echo end
exec sleep 1000
"#;

/// The lines of a process that tells them, by what is before the first '='.
fn told(place: &Place, keys: &str) -> BTreeMap<String, String> {
    let teller = place.file("teller", TELLER, 0o755);
    let out = place.path("out/told");
    let units = format!(
        "[unit.a]\nexec = ['{}', '{}']\nmode = 'none'\nready = 'delay=1ms'\n{keys}",
        teller.display(),
        out.display()
    );
    let mut run = up(place, &units);
    let lines = wait_until(&format!("its words; {}", run.stderr()), || {
        let text = fs::read_to_string(&out).ok()?;
        text.ends_with("end\n").then_some(text)
    });
    shut_down(&mut run);
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn with_output() -> Place {
    let place = Place::new();
    open_to_others(&place);
    fs::create_dir(place.path("out")).unwrap();
    place
}

#[test]
fn what_needs_no_rights() {
    let place = with_output();
    let file = place.file("variables", "# of the file\nA=file\nB='file too'\n", 0o600);
    let told = told(
        &place,
        &format!(
            "dir = '/usr'\nenv = {{ A = 'unit', C = 'more' }}\nenv_file = '{}'\numask = '0027'\nno_new_privs = true\n\
             oom_score_adj = 500\nrlimits = {{ nofile = '64:128', core = 0, stack = '4194304:8388608' }}",
            file.display()
        ),
    );
    let is = |key: &str, value: &str| assert_eq!(told[key], value, "{key}");
    is("umask", "0027");
    is("nofile", "64:128");
    is("core", "0:0");
    is("stack", "4096:8192"); // KiB
    is("new_privs", "1");
    is("oom", "500");
    is("dir", "/usr");
    is("A", "unit B=file too C=more");
    let (session, pid) = told["stdin"].split_once(" session=").unwrap().1.split_once(" pid=").unwrap();
    assert_eq!(session, pid, "it leads its session");
    assert!(told["stdin"].starts_with("/dev/null "), "{}", told["stdin"]);
}

#[test]
fn what_is_not_written_is_the_supervisors() {
    let place = with_output();
    let told = told(&place, "");
    assert_eq!(told["new_privs"], "0");
    assert_eq!(told["oom"], fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim());
    let user = nix::unistd::getuid();
    assert!(told["uid"].starts_with(&format!("{user} gid={}", nix::unistd::getgid())), "{}", told["uid"]);
    assert_eq!(told["dir"], std::env::current_dir().unwrap().to_str().unwrap());
}

#[test]
fn another_user_has_its_own_groups_and_no_rights_of_ours() {
    if !is_root() {
        return;
    }
    let place = with_output();
    let nobody = User::from_name("nobody").unwrap().unwrap();
    chown(&place.path("out"), Some(nobody.uid), None).unwrap();
    let told = told(
        &place,
        "user = 'nobody'\nenv = { SHELL = '/bin/of-unit' }\noom_score_adj = 7\nrlimits = { core = 0 }\n\
         no_new_privs = true\numask = '0077'",
    );
    let (uid, gid) = (nobody.uid, nobody.gid);
    assert_eq!(told["uid"], format!("{uid} gid={gid} groups={gid}"));
    let home = nobody.dir.display();
    assert_eq!(told["HOME"], format!("{home} USER=nobody LOGNAME=nobody SHELL=/bin/of-unit"));
    assert_eq!((told["oom"].as_str(), told["core"].as_str()), ("7", "0:0"));
    assert_eq!((told["new_privs"].as_str(), told["umask"].as_str()), ("1", "0077"));
}

#[test]
fn a_group_and_numbers() {
    if !is_root() {
        return;
    }
    let place = with_output();
    let daemon = Group::from_name("daemon").unwrap().unwrap();
    chown(&place.path("out"), Some(nix::unistd::Uid::from_raw(3_999_999)), None).unwrap();
    let told = told(&place, "user = '3999999'\ngroup = 'daemon'");
    assert_eq!(told["uid"], format!("3999999 gid={0} groups={0}", daemon.gid));
    assert!(told["HOME"].starts_with("/ USER=3999999 LOGNAME=3999999 SHELL="), "{}", told["HOME"]);
}

/// Its user and its supplementary groups are the supervisor's.
#[test]
fn a_group_alone() {
    if !is_root() {
        return;
    }
    let place = with_output();
    let daemon = Group::from_name("daemon").unwrap().unwrap();
    let mut groups = std::collections::BTreeSet::from([daemon.gid.as_raw()]);
    groups.extend(nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()));
    let told = told(&place, "group = 'daemon'");
    let (ids, listed) = told["uid"].split_once(" groups=").unwrap();
    assert_eq!(ids, format!("0 gid={}", daemon.gid));
    assert_eq!(
        listed.split(' ').map(|id| id.parse::<u32>().unwrap()).collect::<std::collections::BTreeSet<_>>(),
        groups
    );
}

#[test]
fn a_shell_line_is_for_a_shell() {
    let place = Place::new();
    let out = place.path("out");
    let units = format!(
        "[unit.a]\nshell = true\nexec = 'echo one | tr a-z A-Z > {}; exec sleep 1000'\nmode = 'none'\nready = 'delay=1ms'\n",
        out.display()
    );
    let mut run = up(&place, &units);
    assert_eq!(written(&out, 1), ["ONE"]);
    shut_down(&mut run);
}

#[test]
fn a_file_of_variables_is_read_at_each_start() {
    let place = Place::new();
    let (out, file) = (place.path("out"), place.file("variables", "A=first\n", 0o600));
    let units = format!(
        "[unit.a]\nshell = true\nexec = 'echo $A >> {}; exec sleep 1000'\nenv_file = '{}'\nmode = 'none'\nready = 'delay=1ms'\n",
        out.display(),
        file.display()
    );
    let mut run = up(&place, &units);
    assert_eq!(written(&out, 1), ["first"]);
    fs::write(&file, "A=second\n").unwrap();
    let said = place.output("restart", &["a"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(written(&out, 2), ["first", "second"]);
    shut_down(&mut run);
}
