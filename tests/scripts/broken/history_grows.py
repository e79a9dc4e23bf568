history = []


def init():
    pass


def run(data):
    history.append(data)
    return {"ok": True}
