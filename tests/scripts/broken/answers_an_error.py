from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


def run(data):
    return AMLResponse({"message": "no rows"}, 422, json_str=True)
