#!/usr/bin/env python3
"""A successor from the future: it speaks protocol 7 to 9 only. It writes down how it is refused, and exits."""
import os
import socket
import struct
import sys

session = socket.socket(fileno=int(os.environ["HANDOFF_SOCK_FD"]))
header = b"HOFF" + struct.pack("<HH", 9, 1)
body = struct.pack("<BIHHIQIQH", 2, os.getpid(), 7, 9, 1, 0, 8, 0, 0)
session.send(header + body)
answer = session.recv(65536)
print("future: answered with message", struct.unpack_from("<H", answer, 6)[0], file=sys.stderr)
sys.exit(3)
