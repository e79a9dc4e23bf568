"""Answers with the text that it got."""


def init():
    pass


def run(data):
    return data
