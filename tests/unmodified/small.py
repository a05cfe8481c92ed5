"""A small web server that takes its listener as systemd gives it; arguments say how it tells that it is ready."""
import os, select, signal, socket, sys, threading, time

options = dict(word.partition("=")[::2] for word in sys.argv[1:])

def notify(text, *fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(sender, [text.encode()], fds)

assert int(os.environ["LISTEN_PID"]) == os.getpid(), "LISTEN_PID"
names = os.environ["LISTEN_FDNAMES"].split(":")
assert len(names) == int(os.environ["LISTEN_FDS"]), "LISTEN_FDNAMES"
listener = socket.socket(fileno=3)
listeners = [listener] + ([socket.socket(fileno=4)] if "health" in names else [])
end_read, end_write = os.pipe()
answers = []

def stop(*_):
    os.write(2, b"told to stop\n")
    os.write(end_write, b"x")

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR2, lambda *_: notify(options["say"].replace(",", "\n")))

def answer(connection):
    with connection:
        connection.setblocking(True)
        if connection.recv(4096):
            time.sleep(float(options.get("think", 0)))
            if "until" in options:
                os.write(2, b"asked\n")
                while not os.path.exists(options["until"]):
                    time.sleep(0.01)
            body = b"%d\n" % os.getpid()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            connection.recv(1)  # the client closes first

def barrier():
    """Returns when all that was sent before is read."""
    ours, theirs = os.pipe()
    notify("BARRIER=1", theirs)
    os.close(theirs)
    os.read(ours, 1)

def hand_on(how):
    """This process becomes a child of itself; the parent waits until that is known, and then exits, or stays for ever."""
    ours, theirs = os.pipe()
    if os.fork():
        os.close(theirs)
        os.read(ours, 1)
        if how.startswith("stay"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.pause()
        os._exit(3)
    if how.endswith("away"):
        os.setsid()
    notify("MAINPID=%d" % os.getpid())
    barrier()
    os.close(theirs)

def ready():
    for pid in options["lies"].split(",") if "lies" in options else []:
        notify("MAINPID=" + pid)
    if "more" in options:
        notify("EXTEND_TIMEOUT_USEC=%d" % (float(options["more"]) * 1e6))
    if "store" in options:  # what the one before has left, or something new
        if options["store"] in names:
            kept = 3 + names.index(options["store"])
            os.lseek(kept, 0, os.SEEK_SET)
            os.write(2, b"found: %s\n" % os.read(kept, 100))
        else:
            kept = os.memfd_create("kept")
            os.write(kept, b"left by %d" % os.getpid())
            notify("FDSTORE=1\nFDPOLL=0\nFDNAME=" + options["store"], kept)
    if "names" in options:
        os.write(2, b"names: %s\n" % ":".join(names).encode())
    if "hung" in options and len(names) == 1:  # nobody is at the other ends
        for name, words in ("forgotten", ""), ("kept", "FDPOLL=0\n"):
            ours, theirs = os.pipe()
            os.close(theirs)
            notify("FDSTORE=1\n%sFDNAME=%s" % (words, name), ours)
    for number in range(int(options.get("many", 0)) if len(names) == 1 else 0):
        kept = os.memfd_create("many")
        for _ in "again", "it is the same":
            notify("FDSTORE=1\nFDNAME=m%d" % number, kept)
        os.close(kept)
    time.sleep(float(options.get("after", 0)))
    if "notify" in options:
        notify("READY=1\nSTATUS=ready to serve")
    if "fd" in options:
        os.write(int(options["fd"]), b"\n")

if "fail" in options:
    sys.exit("a mistake in its settings")
if "hang" in options:
    signal.pause()
    sys.exit(0)
if "main" in options:
    hand_on(options["main"])
if "worker" in options and not os.fork():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(2, b"worker: %d\n" % os.getpid())
    signal.pause()
if "deaf" in options:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=ready, daemon=True).start()
while True:
    readable, _, _ = select.select(listeners + [end_read], [], [])
    if end_read in readable:
        break
    try:
        connection, _ = next(one for one in listeners if one in readable).accept()
    except BlockingIOError:
        continue  # another process was faster
    except OSError:  # it is shut down
        time.sleep(0.01)
        continue
    if "brief" in options:
        connection.close()
        continue
    answers.append(threading.Thread(target=answer, args=[connection]))
    answers[-1].start()
if "shut" in options:
    time.sleep(float(options["shut"]))
    listener.shutdown(socket.SHUT_RDWR)
    os.write(2, b"shut down\n")
for one in listeners:
    one.close()
for thread in answers:
    thread.join()
