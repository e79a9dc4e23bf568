"""Ends its process with the code it got, after a moment in which further jobs can arrive at it;
else echoes."""

import os
import time


def init():
    pass


def run(data):
    if data.startswith("exit "):
        time.sleep(0.05)
        os._exit(int(data[5:]))
    return data
