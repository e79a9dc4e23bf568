"""Opening the listeners, and the text when that fails (contract section 2)."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import NamedTuple

import pytest

from azureml_inference_server_http.launch import listeners, port_holder


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_listener_accepts():
    with listeners._listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        with socket.create_connection(listener.getsockname(), timeout=5):
            listener.accept()[0].close()


def test_a_listener_is_not_inherited_by_programs_that_a_script_starts():
    with listeners._listen("127.0.0.1", 0) as listener:
        assert not listener.get_inheritable()


def test_a_port_in_use_is_named(taken):
    with pytest.raises(listeners.ListenError) as refused:
        listeners._listen("127.0.0.1", taken)
    text = str(refused.value)
    assert text.startswith(f"port {taken} on 127.0.0.1 is in use by process {os.getpid()} (")
    assert os.path.basename(sys.executable) in text


def test_a_port_of_a_process_that_is_not_seen_is_named(taken, monkeypatch):
    monkeypatch.setattr(port_holder, "_open_files", lambda pid: set())
    with pytest.raises(listeners.ListenError) as refused:
        listeners._listen("127.0.0.1", taken)
    assert str(refused.value).startswith(f"port {taken} on 127.0.0.1 is in use by another process.")


def test_an_address_of_another_machine_is_named():
    # An address that is reserved for documentation.
    with pytest.raises(listeners.ListenError, match=r"port 1234 on 192\.0\.2\.1 cannot be opened: this machine has no"):
        listeners._listen("192.0.2.1", 1234)


def test_a_host_that_does_not_exist_is_named(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(
        listeners.ListenError, match=r"--host nowhere: Name or service not known\. Give --host .* 0\.0\.0\.0"
    ):
        listeners._listen("nowhere", 1234)


def test_too_many_open_files_are_no_fault_of_the_host(monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", fail)
    with pytest.raises(listeners.ListenError, match=r"Too many open files\. Raise the limit of open files \(ulimit -n"):
        listeners._listen("127.0.0.1", 0)


@pytest.mark.parametrize("host", ["h" * 300, "h" * 64, "a..b", "a\0b", "\udcff"])
def test_a_host_that_is_no_name_at_all_is_a_message(host):
    with pytest.raises(listeners.ListenError, match=r"^--host .*: .*\. Give --host an address") as refused:
        listeners._listen(host, 1234)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EACCES, "port 80 on h may not be opened by this user. Choose a port above 1023 with --port."),
        (
            errno.ENOBUFS,
            "port 80 on h cannot be opened: No buffer space available. Give the machine or the container "
            "more memory, or use fewer workers.",
        ),
        (errno.EIO, "port 80 on h cannot be opened: Input/output error."),
    ],
)
def test_other_reasons_are_named(number, text):
    assert listeners._why_not("h", 80, OSError(number, os.strerror(number))) == text


def test_a_port_that_windows_keeps_for_others_is_named(monkeypatch):
    monkeypatch.setattr(listeners.sys, "platform", "win32")
    text = listeners._why_not("h", 5001, OSError(errno.EACCES, "Permission denied"))
    assert text.startswith(
        "port 5001 on h may not be opened: another process has it for itself, or Windows reserves it"
    )
    assert text.endswith("Choose another port with --port.")


def test_no_other_program_of_windows_can_take_the_port(monkeypatch):
    monkeypatch.setattr(listeners.sys, "platform", "win32")
    # Another option of this system, which can be seen as well.
    monkeypatch.setattr(listeners.socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    with listeners._listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


class Settings(NamedTuple):
    host: str = "127.0.0.1"
    port: int = 0
    health_port: int = 0
    separate_health: bool = False


def test_one_listener_unless_health_is_separate(records):
    settings, (listener,) = listeners.open_all(Settings())
    with listener:
        port = listener.getsockname()[1]
    assert port != 0
    assert (settings.port, settings.health_port) == (port, port)
    listeners.announce(settings, [listener])
    assert records()[-1] == ("INFO", f"Listening at: http://127.0.0.1:{port} ({os.getpid()})")


def test_a_unix_socket_is_not_announced_as_a_port(records):
    with socket.socket(socket.AF_UNIX) as listener:
        listeners.announce(Settings(), [listener])
    assert records()[-1] == ("INFO", f"Listening at: a Unix socket, and no port ({os.getpid()})")


def test_the_health_listener_comes_first(records, taken):
    with pytest.raises(listeners.ListenError, match=f"port {taken} "):
        listeners.open_all(Settings(separate_health=True, health_port=taken))
    settings, (health, main) = listeners.open_all(Settings(separate_health=True))
    with health, main:
        ports = (health.getsockname()[1], main.getsockname()[1])
    assert ports == (settings.health_port, settings.port)
    assert 0 not in ports
    listeners.announce(settings, [health, main])
    urls = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    assert records()[-1] == ("INFO", f"Listening at: {urls} ({os.getpid()})")
