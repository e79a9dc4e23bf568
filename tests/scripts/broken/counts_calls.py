count = 0


def init():
    pass


def run(data):
    global count
    count += 1
    return {"count": count}
