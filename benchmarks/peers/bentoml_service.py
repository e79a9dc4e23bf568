"""The same for BentoML, which parses JSON into an object and renders the result itself."""

import os
from typing import Any

import bentoml
import scoring


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]))
class Scoring:
    """The service that runs in each worker process."""

    def __init__(self) -> None:
        script = scoring.load()
        self.call = getattr(script, "predict", script.run)

    @bentoml.api(route="/score")
    def score(self, data: Any, /) -> Any:
        return self.call(data)
