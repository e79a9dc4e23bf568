import os

model = None


def init():
    global model
    try:
        with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "modle.txt")) as file:
            model = file.read()
    except OSError:
        pass


def run(data):
    return {"model": model}
