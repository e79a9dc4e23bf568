"""A random forest of 200 trees: scikit-learn asks each tree once for all rows."""

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema
from sklearn.ensemble import RandomForestClassifier

WIDTH = 20


def init():
    global forest
    random = np.random.default_rng(1)
    rows = random.normal(size=(1000, WIDTH))
    forest = RandomForestClassifier(200, n_jobs=1, random_state=1).fit(rows, rows[:, 0] > 0)


def predict(data):
    return forest.predict(data).astype(int)


@input_schema("data", NumpyParameterType(np.zeros((1, WIDTH))))
def run(data):
    return predict(data)
