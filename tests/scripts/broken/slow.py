import time


def init():
    pass


def run(data):
    time.sleep(0.05)
    return {"ok": True}
