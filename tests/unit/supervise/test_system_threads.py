"""Threads of the system, and whether the script has replaced them."""

from __future__ import annotations

import queue
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from azureml_inference_server_http import _core
from azureml_inference_server_http.supervise import system_threads


def test_a_thread_has_its_name_and_needs_no_class_of_threading(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", None)
    told = queue.SimpleQueue()
    system_threads.start(lambda: told.put((threading.current_thread().name, threading.get_ident())), "a-name")
    name, ident = told.get(timeout=20)
    assert name == "a-name"
    assert ident != threading.get_ident()


@pytest.mark.parametrize(
    ("module", "asked", "call"),
    [
        ("eventlet.patcher", "is_monkey_patched", "eventlet.monkey_patch()"),
        ("gevent.monkey", "is_module_patched", "gevent.monkey.patch_all()"),
    ],
)
def test_who_has_replaced_threads(monkeypatch, module, asked, call):
    for name in ("eventlet.patcher", "gevent.monkey"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert system_threads.replaced_by() is None
    for is_patched in (False, True):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{asked: lambda name, answer=is_patched: answer}))
        assert system_threads.replaced_by() == (call if is_patched else None)


@pytest.mark.parametrize(("is_musl", "size"), [(False, []), (True, [8 << 20])])
def test_threads_have_the_stack_of_glibc_with_musl(monkeypatch, is_musl, size):
    asked = []
    monkeypatch.setattr(threading, "stack_size", asked.append)
    monkeypatch.setattr(_core, "IS_FOR_MUSL", is_musl)
    system_threads.give_room()
    assert asked == size


# The names of CPython's own modules do not tell, because up to 3.10 they are those of glibc with musl too.
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a choice of C libraries")
def test_the_native_module_knows_its_c_library():
    maps = Path("/proc/self/maps").read_text()
    assert bool(re.search(r"/ld-musl-|-linux-musl/libc\.so", maps)) == _core.IS_FOR_MUSL
