"""CORS headers set by the script itself, the preflight answered in run()."""

from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(req):
    print(f"Request: [{req.method}]")
    if req.method == "POST":
        result = AMLResponse(req.get_data(), 200)
        result.headers["Access-Control-Allow-Origin"] = "http://site.example"
        return result
    if req.method == "OPTIONS":
        result = AMLResponse("", 200)
        result.headers["Allow"] = "OPTIONS, GET, POST"
        result.headers["Access-Control-Allow-Methods"] = "OPTIONS, GET, POST"
        result.headers["Access-Control-Allow-Origin"] = "http://site.example"
        result.headers["Access-Control-Allow-Headers"] = "*"
        return result
    return AMLResponse("bad request", 400)
