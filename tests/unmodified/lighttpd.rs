//! lighttpd, as Debian has it. Its graceful end is SIGINT: it closes its listeners, answers what it has accepted, and closes
//! connections that are kept alive as soon as nothing is under way on them.

use crate::clients::{replaced_under_load, run, upgrade};
use crate::harness::{Place, text};
use crate::small::own_address;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = "/usr/sbin/lighttpd";

#[test]
fn lighttpd_is_replaced() {
    if !Path::new(PROGRAM).exists() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "lighttpd is not installed, and CI=true");
        return eprintln!("SKIPPED: lighttpd is not installed");
    }
    let place = Place::new();
    let address = own_address();
    // Its only dynamic content without another server: a script for CGI, whose parent is the server.
    place.file("pid", "#!/bin/sh\nprintf 'Content-Length: %d\\r\\n\\r\\n%s\\n' $((${#PPID} + 1)) $PPID\n", 0o755);
    let good = format!(
        "server.document-root = \"{}\"\nserver.bind = \"{}\"\nserver.port = {}\nserver.systemd-socket-activation = \"enable\"\n\
         server.modules = (\"mod_cgi\")\ncgi.assign = (\"pid\" => \"\")\n",
        text(place.dir.path()),
        address.ip(),
        address.port()
    );
    let settings = place.file("lighttpd.conf", &good, 0o644);
    let checked = Command::new(PROGRAM).args(["-tt", "-f", text(&settings)]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let arguments = format!(
        "--listen web={address} --mode overlap --ready health=http://{address}/pid --stop-signal INT --ready-timeout 30s"
    );
    let run = run(&place, &arguments, &[PROGRAM, "-D", "-f", text(&settings)]);
    replaced_under_load(&place, &run, 5, None, || {
        place.file("lighttpd.conf", format!("{good}server.modules += (\"mod_that_is_not\")\n"), 0o644);
        let (code, outcome) = upgrade(&place, None, "");
        assert!(code == 10 && outcome["reason"].as_str().unwrap().contains("mod_that_is_not"), "{outcome}");
        outcome
    });
}
