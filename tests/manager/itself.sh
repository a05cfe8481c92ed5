#!/bin/bash
# Becomes systemd in namespaces of its own, with the units of a directory, and no other ones; or enters them. As root.
#   itself.sh start DIR     runs it; ends when it is killed, with everything in it
#   itself.sh enter DIR COMMAND…
# DIR/groups says with which control groups: 2, or 1, of which a machine may have both beside each other.
set -e
dir=$2
name=handoff-test-$(basename "$dir")
if [[ $(<"$dir/groups") == 2 ]]; then
    tree=$(findmnt -rnt cgroup2 -o TARGET | head -n 1) kind=cgroup2 options=nsdelegate
else
    tree=/sys/fs/cgroup/systemd kind=cgroup options=none,name=systemd,xattr
fi
case $1 in
start)
    mkdir -p "$tree/$name"
    echo $$ >"$tree/$name/cgroup.procs"
    exec unshare --pid --fork --mount --uts --ipc --cgroup --kill-child --mount-proc "$0" inside "$dir"
    ;;
inside)
    mount --make-rprivate /
    for path in /run /var/log /var/lib/systemd; do mount -t tmpfs tmpfs $path; done
    mount --bind "$dir/units" /etc/systemd/system
    umount -R -l /sys/fs/cgroup
    if [[ $kind == cgroup ]]; then
        mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
        mkdir $tree
    else
        tree=/sys/fs/cgroup
    fi
    mount -t $kind -o $options cgroup $tree
    export container=handoff-test
    exec /lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=no
    ;;
enter)
    init=$(cat "$dir/init")
    exec nsenter -t "$init" -m -p -u -i -C "${@:3}"
    ;;
clean)
    [[ -e $tree/$name ]] || exit 0 # some of them end while they are looked at
    find "$tree/$name" -depth -type d -exec rmdir {} +
    ;;
esac
