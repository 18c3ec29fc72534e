"""results/delegate/delegate.json: which operators of each TFLite artifact a GPU takes."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pocketbert.errors import PocketBertError
from pocketbert.report.sources import read_json


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Finding(_Record):
    """An operator that a rule names."""

    operator: str
    layer: str
    effect: str
    reason: str
    hint: str


class Predicted(_Record):
    """What one profile of rules says of an artifact."""

    total: int
    delegated: int
    whole: bool
    refused: list[Finding]
    hazards: list[Finding]

    @property
    def fails(self) -> bool:
        """Whether the delegate fails as a whole."""
        return any(finding.effect == "fatal" for finding in self.hazards)

    @property
    def groups(self) -> list[tuple[Finding, int, str]]:
        """Findings alike in operator and reason: the first one, how many, and their layers."""
        found = [*self.refused, *self.hazards]
        counts = Counter((f.effect, f.operator, f.reason, f.hint) for f in found)
        first = {(f.effect, f.operator, f.reason, f.hint): f for f in reversed(found)}
        layers: dict[tuple[str, str, str, str], dict[str, None]] = {}
        for f in found:
            if f.layer:
                layers.setdefault((f.effect, f.operator, f.reason, f.hint), {})[f.layer] = None
        return [(first[key], count, ", ".join(layers.get(key, {}))) for key, count in counts.most_common()]


class Placed(_Record):
    """Where the runtime put the operators."""

    adapter: str | None
    software: bool
    total: int | None
    delegated: int | None
    partitions: int | None
    refused: list[str]


class Measured(_Record):
    """One run on the GPU; a failed one has an error."""

    placement: Placed | None
    rel_diff: float | None
    limit: float | None
    dequantized: bool
    right: bool | None
    whole: bool
    error: str | None
    # Why there is nothing to compare the result with.
    unproven: str | None = None


class DelegatedArtifact(_Record):
    """One artifact; `measured` by precision, None where no GPU was asked."""

    md5: str
    predicted: dict[str, Predicted]
    measured: dict[str, Measured] | None
    agreed: bool | None


class Delegations(_Record):
    """delegate.json."""

    device: str
    # Why no GPU was asked.
    missing: str | None
    artifacts: dict[str, DelegatedArtifact]

    @property
    def profiles(self) -> list[str]:
        """Names of the rules."""
        return list(next(iter(self.artifacts.values())).predicted) if self.artifacts else []

    @property
    def precisions(self) -> list[str]:
        """In which any artifact was run, in the order of the file."""
        return list(dict.fromkeys(name for a in self.artifacts.values() for name in a.measured or {}))

    @property
    def adapter(self) -> Placed | None:
        """The GPU that was asked."""
        runs = [m for a in self.artifacts.values() for m in (a.measured or {}).values()]
        return next((m.placement for m in runs if m.placement), None)


def read_delegations(folder: Path | None) -> Delegations | None:
    """Read delegate.json; None without a folder. Raises PocketBertError for a broken file."""
    if folder is None:
        return None
    path = folder / "delegate.json"
    try:
        return Delegations.model_validate(read_json(path))
    except ValidationError as error:
        raise PocketBertError(f"{path}: {error.errors()[0]['msg']}", "Run `dvc repro` to build it again.") from error
