"""A run() that takes the texts of several requests. It must not import Flask."""

import json

import deeds

from azureml_inference_server_http.api import batched


def init():
    deeds.open_journal()


def result(order):
    try:
        return deeds.do(order)
    except ValueError as exc:
        return exc


@batched(max_size=8, max_wait_ms=2)
def run(texts):
    orders = [json.loads(text) for text in texts]
    with deeds.noted(*orders):
        return [result(order) for order in orders]
