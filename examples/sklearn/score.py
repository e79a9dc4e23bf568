"""Serves the iris classifier that train.py saved: four measurements of a flower in, its kind out.

Loaded by the server with the model's folder in AZUREML_MODEL_DIR, as in a deployment on Azure.
"""

import json
import logging
import os

import joblib

logger = logging.getLogger("azmlinfsrv.iris")
model = None


def init():
    # In init(), not at the top of the file: the folder is known only when the server runs, and a
    # model that cannot be loaded stops the server at its start, with the reason in the log.
    global model
    path = os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.joblib")
    model = joblib.load(path)
    logger.info("Loaded %s", path)


def run(data):
    rows = json.loads(data)["data"]
    chances = model.predict_proba(rows)
    kinds = model.classes_[chances.argmax(axis=1)]
    # numpy values are rendered as they are; tolist() only says that plain lists are meant.
    return {"predictions": kinds.tolist(), "probabilities": chances.max(axis=1).round(3).tolist()}
