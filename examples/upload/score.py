"""Takes a file that a client uploads in a form, as ``curl -F`` does: ``@rawhttp`` gives ``run()``
the Flask request.

Served by the commands in README.md beside it.
"""

import csv
import io

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(request):
    upload = request.files.get("table")
    if upload is None:
        return AMLResponse({"message": "Send a CSV file in the form field table."}, 400, json_str=True)
    header, *rows = csv.reader(io.StringIO(upload.read().decode("utf-8")))
    return {"file": upload.filename, "columns": header, "rows": len(rows)}
