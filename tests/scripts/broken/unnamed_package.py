import numpy


def init():
    pass


def run(data):
    return {"pi": numpy.pi}
