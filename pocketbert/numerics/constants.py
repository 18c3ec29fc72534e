"""The float constants that a shipped model file really holds, read from the file itself."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.errors import ProofError
from pocketbert.runtimes.host_lookup import POSITIONS_FILE, WORDS_FILE

Array = NDArray[np.float32]


def read_constants(artifact: Artifact) -> dict[str, Array]:
    """Float32 constants of an ONNX or TFLite file, by a name made unique with a number; raises ProofError.

    The file is expected to be whole: a runtime has loaded it before.
    """
    if artifact.card.format == "onnx":
        return dict(_onnx_constants(artifact))
    if artifact.card.format == "tflite":
        return dict(_tflite_constants(artifact)) | _host_tables(artifact)
    raise ProofError(
        f"{artifact.name} is a {artifact.card.format} artifact, whose constants cannot be read",
        "Validate ONNX and TFLite exports.",
    )


def _host_tables(artifact: Artifact) -> dict[str, Array]:
    """The embedding tables beside the file, where the host looks them up."""
    paths = [artifact.folder / name for name in (WORDS_FILE, POSITIONS_FILE)]
    return {path.name: np.load(path, mmap_mode="r", allow_pickle=False) for path in paths if path.exists()}


def _onnx_constants(artifact: Artifact) -> Iterator[tuple[str, Array]]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(artifact.model_path).graph
    attributes = (attribute for node in graph.node for attribute in node.attribute)
    tensors = [*graph.initializer, *(attribute.t for attribute in attributes if attribute.HasField("t"))]
    for index, tensor in enumerate(tensors):
        if tensor.data_type == onnx.TensorProto.FLOAT:
            yield f"{tensor.name or 'Constant'}#{index}", numpy_helper.to_array(tensor)


def _tflite_constants(artifact: Artifact) -> Iterator[tuple[str, Array]]:
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.Model.GetRootAs(artifact.model_path.read_bytes(), 0)
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for position in range(graph.TensorsLength()):
            tensor = graph.Tensors(position)
            content = model.Buffers(tensor.Buffer()).DataAsNumpy()
            # flatbuffers answers 0 for a tensor without data.
            if tensor.Type() == schema.TensorType.FLOAT32 and isinstance(content, np.ndarray):
                shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
                yield f"{tensor.Name().decode()}#{index}.{position}", content.view(np.float32).reshape(shape)
