//! Checks of the unit of systemd that runs the supervisor (systemd.service(5), systemd.kill(5)).

use std::collections::BTreeMap;

use super::{Check, Finding};

/// Its properties, as `systemctl show` has them.
pub(super) type Properties = BTreeMap<String, String>;

/// Those that are looked at.
pub(super) const NAMES: [&str; 7] =
    ["Id", "Type", "NotifyAccess", "KillMode", "OOMPolicy", "FileDescriptorStoreMax", "Restart"];

pub(super) fn examine(properties: &Properties) -> Vec<Finding> {
    let value = |name: &str| properties.get(name).map_or("", String::as_str);
    let unit = value("Id");
    let check = |name| Check::new(name, unit);
    let mut findings = Vec::new();
    if !matches!(value("Type"), "notify" | "notify-reload") {
        findings.push(check("Type").warning(
            format!("Type={}: systemd takes it to be up before its services are", value("Type")),
            "write Type=notify",
        ));
    } else if value("NotifyAccess") == "none" {
        let text = "NotifyAccess=none: systemd never hears that it is ready";
        findings.push(check("NotifyAccess").error(text, "write NotifyAccess=main"));
    }
    if !matches!(value("KillMode"), "process" | "none") {
        findings.push(check("KillMode").warning(
            format!("KillMode={}: a supervisor that is killed takes its daemons along", value("KillMode")),
            "write KillMode=process: they live on, and the next supervisor adopts them; it stops them itself when it is stopped",
        ));
    }
    if value("OOMPolicy") != "continue" {
        findings.push(check("OOMPolicy").warning(
            format!(
                "OOMPolicy={}: a daemon that the kernel kills for memory takes all others along",
                value("OOMPolicy")
            ),
            "write OOMPolicy=continue: the supervisor starts it again",
        ));
    }
    if value("FileDescriptorStoreMax") == "0" {
        findings.push(check("FileDescriptorStoreMax").warning(
            "FileDescriptorStoreMax=0: listeners are lost if supervisor and daemon die together",
            "write FileDescriptorStoreMax= with as many as there are listeners, or more",
        ));
    }
    if value("Restart") == "no" {
        let text = "Restart=no: nobody starts a supervisor again that was killed";
        findings.push(check("Restart").warning(text, "write Restart=on-failure, or always"));
    }
    if findings.is_empty() {
        findings.push(check("unit-file").ok("its unit file is as it should be"));
    }
    findings
}

/// What `systemctl show` printed.
pub(super) fn parse(text: &str) -> Properties {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// The service unit in a line of `/proc/PID/cgroup` (cgroups(7)).
pub(super) fn unit_of(cgroups: &str) -> Option<&str> {
    let path = |line: &'_ str| line.splitn(3, ':').nth(2).map(str::len);
    let lines = cgroups.lines().filter(|line| line.starts_with("0::") || line.contains(":name=systemd:"));
    let paths = lines.filter_map(|line| path(line).map(|len| &line[line.len() - len..]));
    paths.flat_map(|path| path.rsplit('/')).find(|part| part.ends_with(".service"))
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Error, Ok, Warning};
    use super::*;

    const GOOD: &str = "Id=kv.service\nType=notify\nNotifyAccess=main\nKillMode=process\nOOMPolicy=continue\nFileDescriptorStoreMax=16\nRestart=always\n";

    #[test]
    fn each_mistake_is_found() {
        let found = |from: &str, to: &str| {
            let findings = examine(&parse(&GOOD.replace(from, to)));
            findings.into_iter().map(|finding| (finding.check, finding.severity)).collect::<Vec<_>>()
        };
        assert_eq!(found("", ""), [("unit-file", Ok)]);
        assert_eq!(found("Type=notify", "Type=simple"), [("Type", Warning)]);
        assert_eq!(found("=main", "=none"), [("NotifyAccess", Error)]);
        assert_eq!(found("=process", "=mixed"), [("KillMode", Warning)]);
        assert_eq!(found("=continue", "=stop"), [("OOMPolicy", Warning)]);
        assert_eq!(found("Max=16", "Max=0"), [("FileDescriptorStoreMax", Warning)]);
        assert_eq!(found("always", "no"), [("Restart", Warning)]);
        assert!(examine(&parse(GOOD)).iter().all(|finding| finding.place == "kv.service"));
    }

    #[test]
    fn our_own_unit_files_are_as_they_should_be() {
        for file in [
            include_str!("../../../docs/systemd/handoff.service"),
            include_str!("../../../docs/systemd/handoff@.service"),
        ] {
            let findings = examine(&parse(file));
            assert!(findings.iter().all(|finding| finding.severity == Ok), "{findings:#?}");
        }
    }

    #[test]
    fn the_unit_is_in_the_cgroup() {
        assert_eq!(unit_of("0::/system.slice/kv.service\n"), Some("kv.service"));
        assert_eq!(unit_of("4:memory:/x\n1:name=systemd:/system.slice/kv.service/main\n0::/\n"), Some("kv.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(unit_of(""), None);
    }
}
