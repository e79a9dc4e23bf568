"""Names for scoring scripts: ``current_request()``, ``batched``, ``raw_v2``, ``api.metrics``,
``api.aml_request`` and ``api.aml_response``.

The last two modules need Flask, so a script imports the one it uses. They are reachable as
``azureml.contrib.services.*`` as well (see ``contrib_services``).
"""

from __future__ import annotations

from .._core import CurrentRequest
from ..scripting.current_request import current_request
from .batching import batched
from .inference import InferenceRequest, raw_v2

__all__ = ["CurrentRequest", "InferenceRequest", "batched", "current_request", "raw_v2"]
