import os


def init():
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "modle.txt")):
        pass


def run(data):
    return data
