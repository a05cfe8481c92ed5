#!/bin/sh
# Lets Go programs link the library of the build tree instead of an installed one:
#
#   cargo build --release
#   export PKG_CONFIG_PATH="$(bindings/go/build-tree.sh)"
#
#   build-tree.sh [LIBDIR [OUT]]   LIBDIR: where libhandoff.so is, default target/release; OUT: default LIBDIR/pkgconfig
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
libdir=${1:-${CARGO_TARGET_DIR:-$root/target}/release}
test -e "$libdir/libhandoff.so" || { echo "no libhandoff.so in $libdir: cargo build --release first" >&2; exit 1; }
libdir=$(cd "$libdir" && pwd)
out=${2:-$libdir/pkgconfig}
mkdir -p "$out"
out=$(cd "$out" && pwd)
# The soname is what a program looks for; cargo writes the file without it. Renamed into place: builds may run side by side.
ln -sfn "$libdir/libhandoff.so" "$out/link.$$"
mv -fT "$out/link.$$" "$out/libhandoff.so.0"
# pkg-config prefers this name to handoff.pc.
cat >"$out/pc.$$" <<EOF
Name: handoff
Description: the library of the build tree
Version: 0
Cflags: -I$root/include
Libs: -L$out -l:libhandoff.so.0 -Wl,-rpath,$out
EOF
mv -f "$out/pc.$$" "$out/handoff-uninstalled.pc"
echo "$out"
