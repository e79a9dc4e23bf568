def init():
    pass


def run(data):
    yield data
