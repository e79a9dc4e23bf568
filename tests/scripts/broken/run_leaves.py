import os


def init():
    pass


def run(data):
    os._exit(0)
