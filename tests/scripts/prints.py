"""Prints everywhere."""

import sys
import threading

print("at the top")


def init():
    print("in init", 1, None, sep="|")
    print("two\nlines", end="")


def run(data):
    print(data)
    print("not for the log", file=sys.stderr)
    thread = threading.Thread(target=print, args=("in a thread",))
    thread.start()
    thread.join()
    print()
    return print.__name__
