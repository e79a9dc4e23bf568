"""Returns the body, or the query, as it came."""

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(request):
    return AMLResponse(request.get_data() if request.method == "POST" else str(request.args.to_dict()), 200)
