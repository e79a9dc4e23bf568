def init():
    pass


def run(data):
    return {"predictions": [1, {"labels": {"a"}}]}
