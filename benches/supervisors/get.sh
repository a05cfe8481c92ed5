#!/bin/sh
# Brings the other supervisors of `cargo bench --bench supervisors` from Debian's archive, those that are missing. supervisord
# and runit are only files in a directory of the build, so no daemon of theirs is started; s6 has to be installed, by root,
# since its programs look for each other in /usr/bin.
set -eu
cd "$(dirname "$0")/../.."
others="${CARGO_TARGET_DIR:-target}/tmp/others"
mkdir -p "$others"
cd "$others"

missing() { ! command -v "$1" >/dev/null && ! [ -e "usr/bin/$1" ]; }
get() {
    apt-get download "$@"
    for file in ./*.deb; do dpkg-deb -x "$file" . && rm "$file"; done
}

if missing supervisord; then get supervisor python3-pkg-resources; fi
if missing runsvdir; then get runit; fi
if missing s6-svscan; then apt-get install --yes --no-install-recommends s6; fi
