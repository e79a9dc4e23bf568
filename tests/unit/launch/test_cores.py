"""``launch/cores.py``: how many cores a process may use, and what says so."""

from __future__ import annotations

import pytest

from azureml_inference_server_http.launch.cores import Cores, of, usable

V2 = {"/proc/self/cgroup": "0::/\n"}
V1 = {"/proc/self/cgroup": "5:memory:/a/b\n4:cpu,cpuacct:/a/b\n1:name=systemd:/\n"}


def quota(cores: int, text: str) -> Cores:
    return Cores(cores, f"CPU quota of the control group, {text}")


@pytest.mark.parametrize(
    ("files", "affinity", "machine", "expected"),
    [
        ({}, 8, 8, Cores(8, "cores of the machine")),
        ({}, None, 3, Cores(3, "cores of the machine")),
        ({}, 2, 8, Cores(2, "CPU affinity, of 8 cores")),
        ({**V2, "/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 8, 8, quota(2, "1.5 of 8 cores")),
        ({**V2, "/sys/fs/cgroup/cpu.max": "20000 100000\n"}, 8, 8, quota(1, "0.2 of 8 cores")),
        ({**V2, "/sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, 8, Cores(8, "cores of the machine")),
        ({**V2, "/sys/fs/cgroup/cpu.max": "400000 100000\n"}, 2, 8, Cores(2, "CPU affinity, of 8 cores")),
        ({**V2, "/sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 8, 8, Cores(8, "cores of the machine")),
        ({**V2, "/sys/fs/cgroup/cpu.max": "nonsense"}, 8, 8, Cores(8, "cores of the machine")),
        (
            {
                "/proc/self/cgroup": "0::/system.slice/scoring.service\n",
                "/sys/fs/cgroup/system.slice/scoring.service/cpu.max": "max 100000",
                "/sys/fs/cgroup/system.slice/cpu.max": "300000 100000",
            },
            8,
            8,
            quota(3, "3 of 8 cores"),
        ),
        (
            {
                **V1,
                "/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us": "250000\n",
                "/sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us": "100000\n",
            },
            8,
            8,
            quota(3, "2.5 of 8 cores"),
        ),
        (
            # In a container the group of the container is mounted as the outermost one.
            {**V1, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            8,
            8,
            quota(1, "0.5 of 8 cores"),
        ),
        (
            {**V1, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            8,
            8,
            Cores(8, "cores of the machine"),
        ),
    ],
)
def test_the_smallest_limit_counts(files: dict[str, str], affinity: int, machine: int, expected: Cores) -> None:
    assert of(files.get, affinity, machine) == expected


def test_this_machine_has_a_core() -> None:
    assert usable().number >= 1
