"""Answers with the request headers, in their order."""


def init():
    pass


def run(data, request_headers):
    assert type(request_headers) is dict
    return list(request_headers.items())
