"""Answers with what it got."""


def init():
    pass


def run(data):
    return data
