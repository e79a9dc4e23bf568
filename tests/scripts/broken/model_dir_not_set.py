import os


def init():
    os.path.join(os.getenv("AZUREML_MODEL_DIR"), "model.txt")


def run(data):
    return data
