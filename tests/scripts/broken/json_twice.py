import json


def init():
    pass


def run(data):
    return json.dumps({"score": 1})
