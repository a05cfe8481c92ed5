#!/bin/bash
# A container without Docker: a root of its own above that of the machine, and namespaces of its own. As root.
#   container.sh run DIR [--read-only] COMMAND…   runs it, with the files of DIR/bin in /usr/local/bin and those of DIR/etc in /etc; with
#                                                 --read-only as user 1000, who may write to /run/handoff and /data only
#   container.sh exec INIT COMMAND…               in the container of this process
# And as Docker has them, with the process in $INIT: cp FILE CONTAINER:PATH, and exec CONTAINER COMMAND…
set -e
case $1 in
run)
    exec unshare --pid --fork --mount --uts --ipc --net --kill-child "$0" inside "${@:2}"
    ;;
inside)
    dir=$2 own=$2/container user=()
    shift 2
    mount --make-rprivate /
    python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))' # SIOCSIFFLAGS, IFF_UP
    mkdir "$own"
    mount -t tmpfs tmpfs "$own"
    mkdir "$own"/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$own/upper,workdir=$own/work" "$own/root"
    cd "$own/root"
    mkdir -p usr/local/bin data
    cp "$dir"/bin/* usr/local/bin/
    [[ ! -e $dir/etc ]] || cp "$dir"/etc/* etc/
    mount -t proc proc proc
    mount --bind /dev dev
    mount -t tmpfs -o mode=755 tmpfs run
    if [[ $1 == --read-only ]]; then
        mkdir run/handoff
        mount -t tmpfs -o uid=1000,mode=0700 tmpfs run/handoff
        mount -t tmpfs -o uid=1000,mode=0700 tmpfs data
        mount -o remount,bind,ro .
        user=(setpriv --reuid 1000 --regid 1000 --clear-groups)
        shift
    fi
    exec chroot . "${user[@]}" "$@"
    ;;
exec)
    # Of Docker the second word is a name.
    exec nsenter -t "${INIT-$2}" -m -p -n -u -i -r -w -- "${@:3}"
    ;;
cp)
    cp "$2" "/proc/$INIT/root${3#*:}"
    ;;
esac
