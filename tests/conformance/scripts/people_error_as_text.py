"""Everything in try/except; failures go out as text with status 200, or as an AMLResponse with a
status."""

import json
import traceback

from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


def run(mini_batch):
    try:
        data = json.loads(mini_batch)
        if "wanted" in data:
            return AMLResponse(
                json.dumps({"code": data["wanted"]}), data["wanted"], {"Content-Type": "application/json"}
            )
        return {"sum": sum(data["data"])}
    except TypeError as error:
        return str(error)
    except Exception as error:
        return AMLResponse(f"failed: {type(error).__name__}\n{traceback.format_exc().splitlines()[0]}", 400)
