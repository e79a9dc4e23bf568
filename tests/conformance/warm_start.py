"""Starts servers of an environment by forking a process that has imported what all of them import.

Run by the interpreter of the environment: ``python warm_start.py SOCKET MODULES``. It imports the modules that the file
MODULES names, and then forks a process for each connection to the Unix socket. Each connection carries one request: a
line of JSON with the arguments, the environment and the folder of a server, and the descriptors of its standard output
and error. That process runs ``bin/azmlinfsrv`` as its main module, in a session of its own. Two lines answer: its pid,
and when it has ended, its exit code. Ends when standard input ends. server.py (``WarmStart``) has the other side.

The published server spends most of its start on these imports. It reads its settings when its own modules are imported,
so MODULES must not name those, nor others that read the folder or a variable when they are imported. ``--self-check``
shows that exit codes and output are those of a server that was started in the usual way.
"""

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import types


def main(path, names):
    """Serves requests. Returns None at the end, and in a process that has become a server the words of its command."""
    for name in names:
        # Some modules can only be imported by the package that they belong to.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Whoever handles a request waits for its server; nobody waits for those who handle requests.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    # Renamed when it listens, because the other side connects as soon as the file exists.
    listener.bind(f"{path}-")
    listener.listen(64)
    os.rename(f"{path}-", path)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while not any(key.fileobj is sys.stdin for key, _ in selector.select()):
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            selector.close()
            return handle(connection)
        connection.close()
    return None


def handle(connection):
    """Starts the server that the connection asks for, and waits until it ends. Returns only in the server."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, descriptors = socket.recv_fds(connection, 1 << 20, 2)[:2]
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 20)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        connection.close()
        os.close(reader)
        os.close(writer)
        return become(json.loads(data), descriptors)
    for descriptor in (*descriptors, writer):
        os.close(descriptor)
    # The pipe ends when the server has its session, which the other side will kill.
    os.read(reader, 1)
    connection.sendall(b"%d\n" % pid)
    status = os.waitpid(pid, 0)[1]
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def become(request, descriptors):
    """Gives this process streams, folder and environment of a server. Returns the words of its command."""
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in zip((null, *descriptors), (0, 1, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    return request["command"]


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        words = main(sys.argv[1], file.read().split())
    if words:
        # What Python does with a script.
        sys.argv = words
        sys.path[0] = os.path.dirname(words[0])
        with open(words[0], "rb") as file:
            code = compile(file.read(), words[0], "exec")
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        module.__file__ = words[0]
        exec(code, module.__dict__)
