"""Runs the command as a child of a test process: ``python -m azureml_inference_server_http.testing.child PARENT …``.

Owns one thing that the command itself does not do: if the test process is killed, the kernel ends the server with it,
where the system can do that. PARENT is the pid of the test process, or 0 to leave this out. What follows are the
options of the command. Becomes the launcher.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Tie this process to its parent, then serve."""
    parent = int(sys.argv.pop(1))
    if parent and hasattr(os, "fork"):
        from azureml_inference_server_http import _core

        if not _core.die_with_parent(parent):
            return
    from azureml_inference_server_http.__main__ import run

    run()


if __name__ == "__main__":
    main()
