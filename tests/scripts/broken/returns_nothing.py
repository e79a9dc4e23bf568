def init():
    pass


def run(data):
    len(data)
