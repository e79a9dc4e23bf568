"""What the figures were measured on, as far as it matters for them: nothing that names the machine
or its owner."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from .load import find_wrk


def description() -> dict[str, Any]:
    """Describe the machine at the start of a run. The load average shows whether it was idle."""
    wrk = subprocess.run([find_wrk(), "--version"], capture_output=True, text=True, check=False)
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text("ascii"))
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / (1 << 20)) if memory else 0,
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "rust": rust.stdout.split()[1] if rust.stdout else "",
        "wrk": _wrk_version(wrk.stdout + wrk.stderr),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _wrk_version(told: str) -> str:
    """Find the version number in wrk's output, to which distributions add words of their own."""
    found = re.search(r"\d+\.\d+\.\d+", told)
    return found[0] if found else "of an unknown version"


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text("utf-8")
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1].strip() if found else platform.machine()
