"""How many threads the libraries that compute use in each worker (``--thread_pools``).

BLAS, OpenMP and numexpr start as many threads in each process as the machine has cores. With several
workers that is many times the number of cores, and threads that wait for each other make all calls
slower. Pure functions. Used by the launcher.
"""

from __future__ import annotations

from collections.abc import Mapping

from .cores import Cores

# The variables that numpy, scipy, scikit-learn, PyTorch and ONNX Runtime obey, each with its library.
NAMES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def sizes(environment: Mapping[str, str], cores: int, workers: int) -> dict[str, str]:
    """The variables that each worker gets, so that all workers together use each core once. Empty
    if there is one worker, or if the user has set any of them."""
    if workers < 2 or any(environment.get(name) for name in NAMES):
        return {}
    return dict.fromkeys(NAMES, str(max(1, cores // workers)))


def oversubscribed(environment: Mapping[str, str], cores: Cores, workers: int) -> list[str]:
    """A warning if the user's own variables make more threads than there are cores."""
    given = {name: int(environment[name]) for name in NAMES if environment.get(name, "").strip().isdigit()}
    name = max(given, key=lambda name: given[name], default="")
    threads = given.get(name, 0)
    if workers < 2 or threads < 2 or threads * workers <= cores.number:
        return []
    return [
        f"{name}={threads} lets {workers} workers compute with {threads * workers} threads on {cores.number} cores "
        f"({cores.source}), which makes each of them slower. Set it to {max(1, cores.number // workers)}, or leave it "
        "out, or start fewer workers."
    ]
