"""torch -> TorchScript -> ncnn, by pnnx in a process of its own (the extra `ncnn`)."""

import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path

import torch

from pocketbert.artifacts import Artifact, ArtifactCard, read_artifact, write_artifact
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError
from pocketbert.export.ncnn_graph import NcnnGraph
from pocketbert.export.onnx import without_tracer_warnings
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.runtimes.ncnn_inputs import GRAPH_FILE, MODEL_FILE, PARAM_FILE, NcnnInputs

_TIMEOUT_S = 600.0
# What pnnx says of a layer that it does not know, and then leaves in the file as it is.
_LOST = ("ignore ", "not supported", "not exists")


def export_ncnn(classifier: Path, folder: Path, *, sequence_length: int, mask_value: float) -> Artifact:
    """Write the ncnn artifact of `classifier`: weights and graph in float32, for rows of `sequence_length` tokens.

    Raises ExportError for a family without a graph, without pnnx, and where pnnx loses an operator.
    """
    source, labels = read_artifact(classifier), read_labels(classifier)
    model = load_classifier(classifier)
    inputs = NcnnInputs(
        sequence_length=sequence_length,
        mask_value=mask_value,
        pooling=model.config.pooling,
        token_types=model.uses_token_types,
    )
    folder.mkdir(parents=True)
    convert(model, inputs, folder)
    (folder / GRAPH_FILE).write_text(inputs.model_dump_json(indent=1) + "\n", encoding="utf-8")
    card = ArtifactCard(
        name="ncnn-fp32",
        format="ncnn",
        model_file=MODEL_FILE,
        sequence_length=sequence_length,
        max_length=min(sequence_length, source.card.max_length),
    )
    return write_artifact(folder, card, labels, TextEncoder(classifier))


def convert(model: PocketBertClassifier, inputs: NcnnInputs, folder: Path) -> None:
    """Write model.ncnn.param and model.ncnn.bin into `folder`; raises ExportError."""
    length = inputs.sequence_length
    example = inputs.tensors({"input_ids": torch.zeros(1, length).int(), "attention_mask": torch.ones(1, length).int()})
    with tempfile.TemporaryDirectory(prefix="pocketbert-ncnn-") as scratch, without_tracer_warnings(), torch.no_grad():
        work = Path(scratch)
        tensors = tuple(torch.from_numpy(value) for value in example.values())
        tensors = tuple(tensor.long() if tensor.dtype == torch.int32 else tensor for tensor in tensors)
        torch.jit.trace(NcnnGraph(model), tensors, strict=False).save(str(work / "model.pt"))
        shapes = ",".join(
            f"[{','.join(map(str, t.shape))}]{'i64' if t.dtype == torch.int64 else 'f32'}" for t in tensors
        )
        said = _run_pnnx(work, shapes)
        lost = [line for line in said.splitlines() if any(mark in line for mark in _LOST)]
        if lost:
            raise ExportError(f"pnnx loses an operator: {lost[0].strip()}", "Please report this model.")
        for name in (PARAM_FILE, MODEL_FILE):
            if not (work / name).is_file():
                raise ExportError(f"pnnx wrote no {name}: {said.strip()[-300:]}", "Please report this model.")
            (folder / name).write_bytes((work / name).read_bytes())


def _shape(tensor: torch.Tensor) -> str:
    return f"[{','.join(map(str, tensor.shape))}]{'i64' if tensor.dtype == torch.int64 else 'f32'}"


def _run_pnnx(work: Path, shapes: str) -> str:
    """Run pnnx on model.pt; returns what it said. fp16=0: precision is the runtime's choice, not the file's."""
    package = importlib.util.find_spec("pnnx")
    if package is None or package.submodule_search_locations is None:
        raise ExportError("pnnx is not installed", "Run: pip install 'pocketbert[ncnn]'")
    command = [str(Path(package.submodule_search_locations[0], "pnnx")), "model.pt", f"inputshape={shapes}", "fp16=0"]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=work, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            errors="replace", stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"pnnx did not end within {_TIMEOUT_S:g} s", "Try a smaller model.") from error
    said = done.stdout + done.stderr
    if done.returncode != 0:
        raise ExportError(f"pnnx failed with exit code {done.returncode}: {said.strip()[-300:]}", "Please report it.")
    return said
