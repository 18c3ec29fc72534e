"""A head that int8 cannot store: the one bad layer that a study of sensitivity has to find.

A hidden unit is made so large that int8 rounds all others to 0. LeakyReLU passes a positive factor on, and the next
layer takes it back: in float32 nothing changes.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
from ai_edge_litert.tools import flatbuffer_utils

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.numerics.fusion_bases import copy_bases
from pocketbert.quantize.flatbuffer import float_ops

FACTOR = 1e6


def plant_in_tflite(source: Artifact, folder: Path) -> Artifact:
    """A copy of the artifact with the bad layer."""
    shutil.copytree(source.folder, folder)
    path = folder / source.card.model_file
    tree = flatbuffer_utils.read_model_from_bytearray(bytearray(path.read_bytes()))
    graph = tree.subgraphs[0]
    kinds = [op.kind for op in float_ops(path.read_bytes())]
    first, second = [graph.operators[i] for i, kind in enumerate(kinds) if kind == "FULLY_CONNECTED"][-2:]

    def scale(tensor: int, where: Any, factor: float) -> None:
        buffer = tree.buffers[graph.tensors[tensor].buffer]
        values = np.frombuffer(bytes(buffer.data), np.float32).copy().reshape(graph.tensors[tensor].shape)
        values[where] *= factor
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)

    scale(first.inputs[1], np.s_[0], FACTOR)
    scale(first.inputs[2], np.s_[0], FACTOR)
    scale(second.inputs[1], np.s_[:, 0], 1 / FACTOR)
    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(tree)))
    copy_bases(source.model_path, path)
    return read_artifact(folder)


def plant_in_onnx(source: Artifact, folder: Path) -> Artifact:
    """A copy of the artifact with the bad layer."""
    shutil.copytree(source.folder, folder)
    model = onnx_format.load(folder / source.card.model_file)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("head.linear_"):
            values = onnx_format.numpy_helper.to_array(tensor).copy()
            if "linear_0" in tensor.name:
                values[0] *= FACTOR
            elif tensor.name.endswith("weight"):
                values[:, 0] /= FACTOR
            tensor.CopyFrom(onnx_format.numpy_helper.from_array(values, tensor.name))
    onnx_format.save(model, folder / source.card.model_file)
    return read_artifact(folder)
