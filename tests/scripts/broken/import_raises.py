THRESHOLDS = {"low": 0.1}
LIMIT = THRESHOLDS["high"]


def init():
    pass


def run(data):
    return data
