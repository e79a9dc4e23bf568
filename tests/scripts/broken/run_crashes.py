import ctypes


def init():
    pass


def run(data):
    ctypes.string_at(0)
