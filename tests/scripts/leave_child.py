"""Leaves a child behind, with every descriptor that this process had, and exits with code 9."""

import os
import time


def init():
    pass


def run(data):
    if data != "leave":
        return data
    pid = os.fork()
    if pid == 0:
        while not os.path.exists("go"):
            time.sleep(0.005)
        os._exit(0)
    with open("child", "w") as file:
        file.write(str(pid))
    os._exit(9)
