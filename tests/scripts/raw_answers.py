"""Raw answers that a client sees only in part: what was done meanwhile is the answer to
?w=events."""

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

events = []


def init():
    pass


def parts():
    events.append("ran")
    yield "a"
    yield "b"


def fail():
    events.append("closed")
    raise RuntimeError("of call_on_close")


@rawhttp
def run(request):
    wanted = request.args["w"]
    if wanted == "events":
        return events
    if wanted == "uri":
        return [request.environ["RAW_URI"], str(AMLRequest(request)), AMLRequest(request).get_data(as_text=True)]
    response = AMLResponse("ab" if wanted == "whole" else parts(), 200)
    response.call_on_close(fail)
    return response
