"""Asks a server for its health every 50 ms on one connection, and prints how long each answer took.

A program of its own, ``python probe.py PORT``, so that the interpreter lock of the clients is not
measured along. Each line is the time, the status (0: the connection ended; -1: it was refused) and
the milliseconds. Ends when its input does.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

EVERY = 0.05
REQUEST = b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: keep-alive\r\n\r\n"


def ask(connection: socket.socket) -> int:
    """Check health once. Returns the status; 0 if the connection ends."""
    received = b""
    try:
        connection.sendall(REQUEST)
        while b"\r\n\r\n" not in received or len(received) < expected_length(received):
            more = connection.recv(65536)
            if not more:
                return 0
            received += more
    except OSError:
        return 0
    return int(received[9:12])


def expected_length(received: bytes) -> int:
    head, _, _ = received.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return len(head) + 4 + int(fields[b"content-length"])


def main(port: int) -> None:
    connection = None
    while True:
        began = time.monotonic()
        status = -1
        try:
            connection = connection or socket.create_connection(("127.0.0.1", port))
            status = ask(connection)
        except OSError:
            pass
        if status <= 0:
            connection = None
        print(f"{began} {status} {(time.monotonic() - began) * 1e3:.3f}", flush=True)
        time.sleep(max(0.0, EVERY - (time.monotonic() - began)))


if __name__ == "__main__":
    threading.Thread(target=main, args=(int(sys.argv[1]),), daemon=True).start()
    sys.stdin.read()
