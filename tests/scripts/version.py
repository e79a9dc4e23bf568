"""Changes the version that the server says it has."""

import os


def init():
    pass


def run(data):
    os.environ["HTTP_X_MS_SERVER_VERSION"] = data
