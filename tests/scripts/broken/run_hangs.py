import threading


def init():
    pass


def run(data):
    threading.Event().wait()
