def init():
    pass


def run(data):
    return {"error": "no such flower"}, 404
