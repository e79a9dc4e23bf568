"""What tests of a cluster need: an echo, errors of all kinds, and who has answered."""

import json
import os
import time


def init():
    pass


def run(data):
    body = json.loads(data) if data else {}
    if not isinstance(body, dict):
        return body
    if "touch" in body:
        open(body["touch"], "w").close()
    while "until" in body and not os.path.exists(body["until"]):
        time.sleep(0.02)
    if "sleep" in body:
        time.sleep(float(body["sleep"]))
    if body.get("boom"):
        return {}["no such key"]
    if body.get("die"):
        os._exit(7)
    if body.get("flask"):
        from flask import g, request

        g.seen = request.headers["x-request-id"]
        return {"id": g.seen, "path": request.full_path, "body": request.get_json(), "key": request.args["key"]}
    if body.get("who"):
        return {"worker": os.getpid(), "server": os.getppid(), "version": os.environ.get("VERSION")}
    return body
