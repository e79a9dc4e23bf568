import os


def init():
    os._exit(7)


def run(data):
    return data
