"""What is said about the system's limits."""

from __future__ import annotations

import errno
import os

import pytest

from azureml_inference_server_http.supervise import shortage


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOMEM, "memory"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.ENOSPC, "space"),
        (errno.EROFS, "read-only"),
    ],
)
def test_each_shortage_has_a_remedy(number, named):
    text = shortage.explain(OSError(number, os.strerror(number)))
    assert text.startswith(f"{os.strerror(number)}. ")
    assert text.endswith(".")
    assert named in text


def test_other_errors_speak_for_themselves():
    assert shortage.explain(OSError(errno.EIO, "Input/output error")) == "Input/output error."
    assert shortage.explain(OSError("something else")) == "something else."
