"""Where the command line of a process is, for its title (``supervise/titles.py``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from azureml_inference_server_http.supervise import titles


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_the_arguments_of_this_process_are_where_the_kernel_says():
    begin, end = titles.arguments_of(Path("/proc/self/stat").read_text())
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(begin)
        assert memory.read(end - begin) == Path("/proc/self/cmdline").read_bytes()


# As qemu-user 7.2 writes it, and as gVisor does.
@pytest.mark.parametrize("count", [43, 50])
def test_a_system_that_does_not_tell_is_no_error(count):
    begin, end = titles.arguments_of("1313 (python ) 3.13) 0 " + "0 " * count)
    assert begin == end
