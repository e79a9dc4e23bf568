"""Has an init() that waits for the file "go"."""

import os
import time


def init():
    open("waiting", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.005)


def run(data):
    return data
