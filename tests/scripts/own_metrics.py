"""Counts with the server's metrics: predictions by the model that it is sent, the size of a cache,
and the length of inputs. A body that begins with "exit" ends the process after that."""

import os

from azureml_inference_server_http.api import metrics


def init():
    global cache
    cache = metrics.gauge("cache_entries", "Entries of the cache.")
    cache.set(10)


def run(data):
    metrics.counter("predictions", "Predictions made.", model=data.split()[0]).inc()
    metrics.histogram("input_length", "Length of the input.", buckets=(4, 8)).observe(len(data))
    cache.inc()
    if data.startswith("exit"):
        os._exit(1)
    return data
