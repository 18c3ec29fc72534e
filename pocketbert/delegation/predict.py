"""What a profile's rules say about a .tflite file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pocketbert.delegation.operators import Operator
from pocketbert.delegation.rules import Effect, Profile
from pocketbert.errors import CheckpointError, PocketBertError


@dataclass(frozen=True)
class Finding:
    """A rule that applies to an operator."""

    index: int
    operator: str
    name: str
    # "embeddings", "layer 3" (counted from 0), "head"; "" where the graph does not tell.
    layer: str
    effect: Effect
    reason: str
    hint: str
    source: str


@dataclass(frozen=True)
class Prediction:
    """What the rules say."""

    profile: str
    total: int
    # Refused, in the file's order.
    refused: tuple[Finding, ...]
    # Taken, and computed wrongly or not at all.
    hazards: tuple[Finding, ...]
    # Sizes of the parts that the delegate could take, in order.
    parts: tuple[int, ...]

    @property
    def fails(self) -> bool:
        """Whether the delegate fails as a whole."""
        return any(finding.effect == "fatal" for finding in self.hazards)

    @property
    def delegated(self) -> int:
        """Operators on the GPU: the delegates take the largest part alone."""
        return 0 if self.fails else max(self.parts, default=0)

    @property
    def whole(self) -> bool:
        """Everything on the GPU, and right."""
        return self.delegated == self.total and not self.hazards


def predict(operators: list[Operator], profile: Profile, layer: Callable[[Operator], str] = lambda _: "") -> Prediction:
    """Apply a profile's rules; the first one that applies to an operator counts."""
    found = [finding for op in operators if (finding := _first(op, profile, layer))]
    refused = tuple(finding for finding in found if finding.effect == "refused")
    hazards = tuple(finding for finding in found if finding.effect != "refused")
    return Prediction(
        profile.name, len(operators), refused, hazards, _parts(operators, {finding.index for finding in refused})
    )


def explained(error: PocketBertError, prediction: Prediction | None) -> str:
    """A failed run in one line: with the cure of a rule that foresaw it, where one did, else with the error's own."""
    foreseen = [finding.hint for finding in prediction.hazards if finding.effect == "fatal"] if prediction else []
    return f"{error.cause.rstrip('.')}. {foreseen[0]}" if foreseen else str(error)


def layers_of(path: Path) -> Callable[[Operator], str]:
    """A function from an operator of the file to the layer that it belongs to."""
    # Late: they read the whole file, which only a refusal needs.
    from pocketbert.inspection.tflite_file import read_tflite
    from pocketbert.numerics.places import Places

    model = read_tflite(path)
    made = {value for node in model.graph.nodes for value in node.outputs}
    read = {value for node in model.graph.nodes for value in node.inputs}
    places = Places(model.graph, sorted(made - read))

    def layer(operator: Operator) -> str:
        return places.layer(f"0.{operator.output_ids[0]}") if operator.output_ids else ""

    return layer


def _first(operator: Operator, profile: Profile, layer: Callable[[Operator], str]) -> Finding | None:
    for rule in profile.rules:
        if rule.applies(operator):
            place = layer(operator)
            return Finding(
                operator.index, operator.kind, operator.name, place, rule.effect, rule.reason, rule.hint, rule.source
            )
    return None


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
