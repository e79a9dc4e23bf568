"""Writes a small ONNX model for score.py and score_batched.py: a network with three layers and random
weights.

Run it once, in this folder: ``python make_model.py``. It writes ``models/network/1/network.onnx``
beside this file.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODEL = Path(__file__).resolve().parent / "models" / "network" / "1" / "network.onnx"
WIDTHS = (64, 1024, 1024, 10)
# The version of ONNX's operators that onnxruntime has had since 1.10.
OPERATORS = 15


def main():
    random = np.random.default_rng(7)
    nodes, weights = [], []
    value = "rows"
    for layer, (width, next_width) in enumerate(zip(WIDTHS, WIDTHS[1:])):
        matrix = random.normal(0, width**-0.5, (width, next_width)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"weights{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"weights{layer}"], [f"sums{layer}"]))
        value = f"sums{layer}"
        if layer < len(WIDTHS) - 2:
            nodes.append(helper.make_node("Relu", [value], [f"layer{layer}"]))
            value = f"layer{layer}"
    nodes.append(helper.make_node("Softmax", [value], ["chances"], axis=1))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["rows", WIDTHS[0]])],
        [helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["rows", WIDTHS[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPERATORS)], ir_version=8)
    onnx.checker.check_model(model)
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, MODEL)
    print(f"Saved {MODEL}")


if __name__ == "__main__":
    main()
