"""Reads bearer token and deployment name from request_headers and answers with own headers."""

from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


def run(data, request_headers):
    token = request_headers.get("Authorization", "").partition(" ")[2]
    body = {"token": token, "deployment": request_headers.get("Azureml-Model-Deployment"), "data": data}
    return AMLResponse(body, 200, {"X-Seen": ",".join(sorted(request_headers))}, json_str=True)
