"""What a platform demands of names, folders and ports.

Owns the refusals of settings that a platform would refuse only when the files are used. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import azure, facts
from .facts import Facts
from .options import UsageError


def check(kinds: Sequence[str], known: Facts) -> None:
    """Refuse what one of these kinds cannot have. Raises UsageError."""
    if "azureml" in kinds:
        shortest, longest = azure.NAME_LENGTHS
        if not shortest <= len(known.name) <= longest:
            raise UsageError(
                f"the name {known.name!r} has {len(known.name)} characters, but an endpoint of Azure Machine Learning "
                f"must have {shortest} to {longest}: give another with --name"
            )
        if known.out_from_app.split("/")[0] == "..":
            raise UsageError(
                f"--out is not in {known.folder}, but Azure Machine Learning uploads that folder and must find the "
                "Dockerfile in it: name a folder in it with --out"
            )
    if "kserve" in kinds and known.health_port == facts.KSERVE_PORT:
        raise UsageError(
            f"--health_port {facts.KSERVE_PORT} is the port that KServe sends requests to: give another with "
            "--health_port"
        )
