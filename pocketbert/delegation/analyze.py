"""Place a .tflite file's operators by rule and by the runtime, and prove what the GPU computes."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.delegation.operators import Operator, read_operators
from pocketbert.delegation.rules import LITERT, Profile, Rule
from pocketbert.errors import CheckpointError
from pocketbert.numerics.logits import compare_logits
from pocketbert.runtimes.litert_gpu import Placement, Precision, run_on_gpu

# Largest |difference| to the CPU, in spreads of its outputs (numerics/logits.py).
REL_DIFF_MAX: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2}
_ROWS = 6


@dataclass(frozen=True)
class Finding:
    """A rule that applies to an operator."""

    index: int
    operator: str
    name: str
    reason: str
    hint: str
    source: str


@dataclass(frozen=True)
class Prediction:
    """What the rules say."""

    profile: str
    total: int
    refused: tuple[Finding, ...]
    # Taken and computed wrongly.
    hazards: tuple[Finding, ...]
    # Sizes of the parts that the delegate could take, in order.
    parts: tuple[int, ...]

    @property
    def delegated(self) -> int:
        """Operators on the GPU: LiteRT hands it the largest part alone."""
        return max(self.parts, default=0)

    @property
    def whole(self) -> bool:
        """Everything on the GPU, and right."""
        return self.delegated == self.total and not self.hazards


@dataclass(frozen=True)
class Measurement:
    """What the runtime did with it, on made-up rows, against LiteRT's CPU."""

    precision: Precision
    placement: Placement
    delegated: int
    rel_diff: float

    @property
    def right(self) -> bool:
        """Whether the GPU computes what the CPU does. NaN is not right."""
        return self.rel_diff <= REL_DIFF_MAX[self.precision]

    @property
    def whole(self) -> bool:
        """Everything on the GPU in one partition, and right."""
        return self.right and self.placement.left == 0 and self.placement.partitions == 1


@dataclass(frozen=True)
class Delegation:
    """Prediction and, where it was run, measurement of one file."""

    file: str
    prediction: Prediction
    measurement: Measurement | None

    @property
    def whole(self) -> bool:
        """The measurement decides, where there is one."""
        return self.measurement.whole if self.measurement else self.prediction.whole

    @property
    def agreed(self) -> bool:
        """Whether rules and runtime count the same operators (always, where only one was asked)."""
        return self.measurement is None or self.measurement.delegated == self.prediction.delegated

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        document: dict[str, Any] = {"file": self.file, "whole": self.whole, "agreed": self.agreed}
        document["predicted"] = asdict(self.prediction) | {"delegated": self.prediction.delegated}
        if self.measurement:
            finite = bool(np.isfinite(self.measurement.rel_diff))
            document["measured"] = asdict(self.measurement) | {"right": self.measurement.right}
            # JSON has no NaN.
            document["measured"]["rel_diff"] = self.measurement.rel_diff if finite else None
        return document


def predict(operators: list[Operator], profile: Profile = LITERT) -> Prediction:
    """Apply a profile's rules."""
    refused = tuple(found for op in operators if (found := _first(op, profile.rules)))
    left = {finding.index for finding in refused}
    hazards = tuple(found for op in operators if op.index not in left and (found := _first(op, profile.hazards)))
    return Prediction(profile.name, len(operators), refused, hazards, _parts(operators, left))


def _parts(operators: list[Operator], left: set[int]) -> tuple[int, ...]:
    """Sizes of the parts for the GPU, as TFLite's PartitionGraphIntoIndependentNodeSubsets cuts a graph.

    A part takes, in order, every operator of its kind whose inputs are there, until none is left; then comes a part
    of the other kind. (tensorflow/lite/graph_info.cc)
    """
    made_by = {output: op.index for op in operators for output in op.output_ids}
    waiting, done, parts = list(operators), set[int](), list[int]()
    while waiting:
        on_gpu, size = None, 0
        progress = True
        while progress:
            progress = False
            for op in list(waiting):
                ready = all(made_by[i] in done for i in op.input_ids if i in made_by)
                if ready and on_gpu in (None, op.index not in left):
                    on_gpu, size, progress = op.index not in left, size + 1, True
                    done.add(op.index)
                    waiting.remove(op)
        if not size:
            raise CheckpointError("its operators wait for one another in a circle", "Convert the model again.")
        if on_gpu:
            parts.append(size)
    return tuple(parts)


def _first(operator: Operator, rules: tuple[Rule, ...]) -> Finding | None:
    for rule in rules:
        if rule.applies(operator):
            return Finding(operator.index, operator.kind, operator.name, rule.reason, rule.hint, rule.source)
    return None


def analyze(
    path: Path, profile: Profile = LITERT, *, precision: Precision = "fp32", measure: bool = True
) -> Delegation:
    """Predict, and run on this machine's GPU if asked to.

    Raises CheckpointError for a damaged file, DeviceError where there is no GPU or its driver fails, and ProofError
    where the model gives the same for all rows, which proves nothing.
    """
    operators = read_operators(path)
    prediction = predict(operators, profile)
    if not measure:
        return Delegation(str(path), prediction, None)
    inputs, expected = _run_on_cpu(path, operators)
    run = run_on_gpu(path, inputs, precision)
    difference = _difference(expected, run.outputs)
    delegated = len(operators) - run.placement.left
    return Delegation(str(path), prediction, Measurement(precision, run.placement, delegated, difference))


def _difference(expected: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
    """Largest |difference| in spreads of the CPU's outputs; NaN where the GPU gives NaN or infinity."""
    if not np.isfinite(outputs).all():
        return float("nan")
    return compare_logits(expected.reshape(len(expected), -1), outputs.reshape(len(outputs), -1)).max_rel_diff


def _run_on_cpu(path: Path, operators: list[Operator]) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """Rows made for the file's inputs [rows, ...] and its first output (`logits`, where there is one) for each."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
    signatures = interpreter.get_signature_list()
    if not signatures:
        raise CheckpointError(
            f"{path} has no signature, by which its inputs could be told apart",
            "Convert it again with one, or ask the rules alone: --predict.",
        )
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    inputs = _made_up(runner.get_input_details(), operators)
    outputs = runner.get_output_details()
    wanted = "logits" if "logits" in outputs else next(iter(outputs))
    rows = [runner(**{n: values[i : i + 1] for n, values in inputs.items()})[wanted] for i in range(_ROWS)]
    return inputs, np.concatenate(rows).astype(np.float32)


def _made_up(details: dict[str, Any], operators: list[Operator]) -> dict[str, NDArray[Any]]:
    """Rows of 1 to all tokens: token ids within the largest table, masks to match, and token types of 0 and 1."""
    random = np.random.default_rng(0)
    tables = [max(t.shape[0] for t in op.inputs if t.constant) for op in operators if _is_lookup(op)]
    vocabulary = max(tables, default=2)
    inputs: dict[str, NDArray[Any]] = {}
    for name, detail in details.items():
        shape = (_ROWS, *detail["shape"][1:])
        lengths = np.linspace(1, shape[-1], _ROWS).astype(int)
        real = np.arange(shape[-1]) < lengths.reshape(-1, *[1] * (len(shape) - 1))
        if np.issubdtype(detail["dtype"], np.floating):
            values: NDArray[Any] = random.normal(size=shape)
        elif "mask" in name:
            values = np.broadcast_to(real, shape)
        elif "type" in name or "segment" in name:
            values = np.broadcast_to(real, shape) * random.integers(0, 2, shape)
        else:
            values = np.broadcast_to(real, shape) * random.integers(0, vocabulary, shape)
        inputs[name] = values.astype(detail["dtype"])
    return inputs


def _is_lookup(operator: Operator) -> bool:
    return operator.kind in ("GATHER", "EMBEDDING_LOOKUP") and any(t.constant and t.shape for t in operator.inputs)
