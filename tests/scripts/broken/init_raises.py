def load(version):
    return {"version": version + 1}


def init():
    load(None)


def run(data):
    return data
