"""A million floats as the result: the time goes into writing the reply."""

import random

COUNT = 1_000_000


def made():
    """Make random numbers that are the same in every process."""
    chance = random.Random(1)
    return [chance.random() for _ in range(COUNT)]


def init():
    global values
    values = made()


def run(data):
    return {"values": values}
