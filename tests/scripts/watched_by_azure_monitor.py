"""Uses Azure Monitor as its documentation says, in init()."""

import os

from azure.monitor.opentelemetry import configure_azure_monitor


def init():
    configure_azure_monitor(connection_string=os.environ["CONNECTION"], enable_live_metrics=False, sampling_ratio=1.0)


def run(data):
    if data == "boom":
        raise ValueError("boom")
    return data
