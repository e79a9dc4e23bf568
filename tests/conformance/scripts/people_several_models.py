"""Several models found by walking AZUREML_MODEL_DIR, chosen by a field of the request."""

import glob
import json
import os


def init():
    global models
    root = os.environ["AZUREML_MODEL_DIR"]
    models = {}
    for path in sorted(glob.glob(os.path.join(root, "*", "*", "model.json"))):
        with open(path) as f:
            models[path.split(os.sep)[-3]] = json.load(f)
    print(f"{len(models)} models: {', '.join(models)}")


def run(data):
    request = json.loads(data)
    if "model" not in request:
        return {"error": "no model named", "known": list(models)}
    factor = models[request["model"]]["factor"]
    return {"model": request["model"], "result": [value * factor for value in request["values"]]}
