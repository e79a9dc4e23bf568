"""Ends its process with code 7 in init(), and counts how often."""

import os


def init():
    with open("inits", "a") as inits:
        inits.write("1\n")
    os._exit(7)


def run(data):
    return data
