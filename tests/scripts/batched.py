"""A run() that takes the texts of several requests."""

import time
from pathlib import Path

from azureml_inference_server_http.api import batched


def init():
    pass


@batched(max_size=8, max_wait_ms=0)
def run(texts):
    print(f"run() got {len(texts)} rows")
    if "wait" in texts:
        Path("waits").touch()
        while not Path("go").exists():
            time.sleep(0.01)
    if "fail" in texts:
        raise ValueError("a bad text")
    return [KeyError(text) if text == "raise" else text.upper() for text in texts]
