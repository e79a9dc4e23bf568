"""Scores by returning numpy and pandas objects named in the body."""

import numpy as np
import pandas as pd

VALUES = {
    "float64": lambda: np.float64(1.5),
    "nan-float64": lambda: [np.float64("nan"), np.float64("inf")],
    "str_": lambda: np.str_("text"),
    "tolist": lambda: np.array([[1, 2], [3, 4]]).tolist(),
    "list-of-float64": lambda: list(np.array([0.1, 1e22])),
    "array": lambda: np.array([1, 2, 3]),
    "array-2d": lambda: np.array([[1.5, 2.5], [3.5, 4.5]]),
    "empty-array": lambda: np.array([]),
    "array-of-str": lambda: np.array(["a", "b"]),
    "float32": lambda: np.float32(0.5),
    "int64": lambda: np.int64(7),
    "bool_": lambda: np.bool_(True),
    "dict-of-int64": lambda: {"a": np.int64(1), "b": [np.int32(2)]},
    "nested-array": lambda: {"predictions": np.array([0.25, 0.75]), "n": 1},
    "dataframe": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "series": lambda: pd.Series([1, 2]),
    "timestamp": lambda: pd.Timestamp("2024-05-06T07:08:09"),
    "datetime64": lambda: np.datetime64("2024-05-06T07:08:09"),
    "int64-key": lambda: {np.int64(1): 2},
    "complex-array": lambda: np.array([1j]),
    "object-array": lambda: np.array([object()], dtype=object),
}


def init():
    pass


def run(raw_data):
    return VALUES[raw_data]()
