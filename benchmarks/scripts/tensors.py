"""Takes a tensor and returns its double, of the same size.

mosec, which does not have this server's package, calls ``double`` by itself."""

try:
    from azureml_inference_server_http.api import raw_v2
except ImportError:

    def raw_v2(function):
        return function


def init():
    pass


def double(array):
    return array * 2


@raw_v2
def run(request):
    return {"y": double(request.inputs["x"])}
