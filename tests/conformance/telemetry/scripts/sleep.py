"""Takes longer than it may."""

import time


def init():
    pass


def run(data):
    print("begins")
    time.sleep(60)
