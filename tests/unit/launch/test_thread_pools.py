"""``launch/thread_pools.py``: threads of BLAS and OpenMP in each worker."""

from __future__ import annotations

import pytest

from azureml_inference_server_http.launch.cores import Cores
from azureml_inference_server_http.launch.thread_pools import NAMES, oversubscribed, sizes

EIGHT = Cores(8, "cores of the machine")


@pytest.mark.parametrize(
    ("environment", "cores", "workers", "threads"),
    [
        ({}, 8, 1, None),
        ({}, 8, 2, "4"),
        ({}, 8, 3, "2"),
        ({}, 2, 4, "1"),
        ({"OMP_NUM_THREADS": ""}, 4, 2, "2"),
        ({"OMP_NUM_THREADS": "3"}, 8, 2, None),
        ({"MKL_NUM_THREADS": "1"}, 8, 2, None),
    ],
)
def test_workers_share_the_cores_unless_the_user_has_decided(
    environment: dict[str, str], cores: int, workers: int, threads: str | None
) -> None:
    assert sizes(environment, cores, workers) == ({} if threads is None else dict.fromkeys(NAMES, threads))


@pytest.mark.parametrize(
    ("environment", "workers", "is_told"),
    [
        ({"OMP_NUM_THREADS": "4"}, 3, True),
        ({"OMP_NUM_THREADS": "4"}, 2, False),
        ({"OMP_NUM_THREADS": "1"}, 100, False),
        ({"OMP_NUM_THREADS": "9"}, 1, False),
        ({"OMP_NUM_THREADS": "4,2"}, 8, False),
        ({}, 100, False),
    ],
)
def test_the_users_own_numbers_are_checked(environment: dict[str, str], workers: int, is_told: bool) -> None:
    assert bool(oversubscribed(environment, EIGHT, workers)) is is_told


def test_the_warning_has_the_figures() -> None:
    assert oversubscribed({"MKL_NUM_THREADS": "8", "OMP_NUM_THREADS": "1"}, EIGHT, 4) == [
        "MKL_NUM_THREADS=8 lets 4 workers compute with 32 threads on 8 cores (cores of the machine), which makes each "
        "of them slower. Set it to 2, or leave it out, or start fewer workers."
    ]
