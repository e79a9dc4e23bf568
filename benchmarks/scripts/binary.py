"""A raw body, looked at and measured but not worked on."""

from azureml.contrib.services.aml_request import rawhttp


def init():
    pass


@rawhttp
def run(request):
    data = request.get_data()
    return {"bytes": len(data), "first": data[0], "last": data[-1]}
