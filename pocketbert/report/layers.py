"""results/validate/layers.json: how far each export is from the student in torch, layer by layer."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pocketbert.errors import PocketBertError
from pocketbert.report.sources import read_json


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class LayerRow(_Record):
    """One layer; None where a figure was no number."""

    layer: str
    max_abs_diff: float | None
    # Relative to the layer's own spread in torch.
    rel_diff: float | None
    cosine: float | None


class ProvenLayers(_Record):
    """One artifact's layers; none where `unknown` says why they cannot be told."""

    # Kinds of the probes.
    rows: list[str]
    unknown: str | None
    first_divergence: str | None
    worst: str | None
    layers: list[LayerRow]

    def row(self, layer: str) -> LayerRow | None:
        """The figures of a layer."""
        return next((row for row in self.layers if row.layer == layer), None)


class LayerProofs(_Record):
    """layers.json."""

    limit: float
    artifacts: dict[str, ProvenLayers]

    @property
    def names(self) -> list[str]:
        """The layers in their order."""
        return list(dict.fromkeys(row.layer for proven in self.artifacts.values() for row in proven.layers))


def read_layers(folder: Path) -> LayerProofs:
    """Read layers.json of `folder`; raises PocketBertError."""
    path = folder / "layers.json"
    try:
        return LayerProofs.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PocketBertError(f"{path}: {where}: {first['msg']}", "Run `dvc repro` to build it again.") from error
