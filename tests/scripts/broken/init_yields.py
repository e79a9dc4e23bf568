def init():
    yield


def run(data):
    return {"length": len(data)}
