"""Sleeps for as many milliseconds as it is told."""

import time


def init():
    pass


def run(data):
    time.sleep(float(data) / 1000)
    return data
