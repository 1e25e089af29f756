"""Writes a teacher that knows nothing: that of a pair, with the numbers of each of its tables and weights shuffled.

    python benchmarks/shuffled_teacher.py FOLDER/teacher.onnx

Its inputs, outputs and the size of what it says stay as they were, so a project takes it as its teacher. It is for
`graft study FOLDER`, which has to tell that such a teacher does not help.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

_SHUFFLED = (".table", ".weight")


def shuffled(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same network with the numbers of each code table and each layer in another order."""
    draw = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(_SHUFFLED):
            numbers = numpy_helper.to_array(tensor)
            other = draw.permutation(numbers.ravel()).reshape(numbers.shape)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="the ONNX file, which is written anew")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    onnx.save(shuffled(onnx.load(options.teacher), options.seed), options.teacher)


if __name__ == "__main__":
    main()
