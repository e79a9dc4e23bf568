"""Server-sent events from a generator."""

import json

from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


def events(prompt):
    for index, word in enumerate(prompt.split()):
        yield f"data: {json.dumps({'index': index, 'token': word})}\n\n"
    yield "data: [DONE]\n\n"


def run(raw_data):
    prompt = json.loads(raw_data)["prompt"]
    response = AMLResponse(events(prompt), 200, {"Cache-Control": "no-cache"})
    response.mimetype = "text/event-stream"
    return response
