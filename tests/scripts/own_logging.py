"""Does to the server's logger what OWN_LOGGING says, in init() or when it is loaded
(OWN_LOGGING_AT=module).

run() returns the records that the handler of "handler" got; it may also stream until the file "go"
is there, stream a part and then hold until it is, or die.
"""

import json
import logging
import os
import time

from azureml_inference_server_http.api.aml_response import AMLResponse

server = logging.getLogger("azmlinfsrv")
seen = []


class Seen(logging.Handler):
    def emit(self, record):
        seen.append([record.levelname, record.getMessage(), record.process])


class Json(logging.Formatter):
    def format(self, record):
        return json.dumps({"level": record.levelname, "text": record.getMessage()})


class Leaving(logging.Handler):
    def emit(self, record):
        if "/score" in record.getMessage():
            raise SystemExit(5)


def redact(record):
    record.msg = record.msg.replace("secret", "***")
    return "drop" not in record.msg


def apply(deed):
    if deed == "filter":
        server.addFilter(redact)
    elif deed == "formatter":
        for handler in server.handlers:
            handler.setFormatter(Json())
    elif deed == "handler":
        server.addHandler(Seen())
    elif deed == "level":
        server.setLevel(logging.WARNING)
    elif deed == "leave":
        server.addHandler(Leaving())
    elif deed == "disable":
        logging.disable(logging.INFO)


if os.environ.get("OWN_LOGGING_AT") == "module":
    apply(os.environ["OWN_LOGGING"])


def init():
    if os.environ.get("OWN_LOGGING_AT") != "module":
        apply(os.environ["OWN_LOGGING"])


def parts(data):
    while not os.path.exists("go"):
        time.sleep(0.005)
        yield "part "
        while data == "hold" and not os.path.exists("go"):
            time.sleep(0.005)


def run(data):
    if data in ("stream", "hold"):
        return AMLResponse(parts(data), 200)
    if data == "die":
        os._exit(3)
    return seen
