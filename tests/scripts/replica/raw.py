"""Raw requests: digests of bodies, streams, statuses and fields of the script's own."""

import hashlib
import time

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


def parts(number, pause):
    for each in range(number):
        yield f"part {each}\n"
        time.sleep(pause)


@rawhttp
def run(request: AMLRequest):
    if request.args.get("stream"):
        response = AMLResponse("", 200)
        response.response = parts(5, 0.3)
        response.headers.pop("Content-Length", None)
        return response
    if request.args.get("large"):
        return AMLResponse(b"x" * int(request.args["large"]), 200)
    if request.args.get("status"):
        response = AMLResponse("as you like", int(request.args["status"]))
        response.headers["X-Mine"] = "a, b"
        response.headers.add("Set-Cookie", "a=1")
        response.headers.add("Set-Cookie", "b=2")
        return response
    digest = hashlib.sha256(request.get_data()).hexdigest()
    sent = {name: request.headers.get(name) for name in ("User-Agent", "Authorization", "X-Api-Key")}
    return AMLResponse({"digest": digest, "url": request.url, **sent}, 200, json_str=True)
