"""The range scan of any model file: its rows, its ranges, its first NaN or infinity."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pocketbert.comparison.binding import other_orders
from pocketbert.comparison.engines import open_engine
from pocketbert.comparison.rows import choose_tokenizer, read_texts
from pocketbert.comparison.side import FileSide
from pocketbert.data.tokenize import Batch, TextEncoder
from pocketbert.errors import DeviceError
from pocketbert.inspection.inspect import find_model, read_model
from pocketbert.numerics.dump import Row, open_dump
from pocketbert.numerics.nonfinite import NonFinite, first_nonfinite
from pocketbert.numerics.probes import make_probes
from pocketbert.numerics.ranges import RangeReport, scan_ranges

# Tokens a row is cut to where the file does not say how many it takes.
DEFAULT_LENGTH = 128


@dataclass(frozen=True)
class Scan:
    """What fp16 cannot hold of a file, and what the file itself cannot."""

    ranges: RangeReport
    nonfinite: NonFinite | None
    said: tuple[str, ...]

    @property
    def safe(self) -> bool:
        """Nothing was found."""
        return self.ranges.safe and self.nonfinite is None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        first = asdict(self.nonfinite) if self.nonfinite else None
        return self.ranges.as_dict() | {"safe": self.safe, "first_nonfinite": first, "said": self.said}


def scan_file(
    path: Path, data: Path, *, tokenizer: Path | None = None, text_column: str | None = None, rows: int = 32
) -> Scan:
    """Scan a .tflite or .onnx file, or a folder; a torch model is exported to ONNX as it is for the purpose.

    Raises CheckpointError, DeviceError, DataError and ParamsError where something cannot be opened, ProofError where
    the inputs are not those of a BERT-family model.
    """
    found = find_model(path)
    said: list[str] = []
    read_model(found)
    texts = read_texts(data, text_column, rows)
    encoder = choose_tokenizer(tokenizer, found, found, said)
    with _as_file(found, said) as file:
        side = FileSide(file, open_engine(file), _limit(path))
        said += side.assumed
        length = min(n for n in (side.length, side.max_length, DEFAULT_LENGTH) if n is not None)
        _settle(side, encoder, texts.texts[:1], said)
        batches = list(_rows(side, encoder, texts.texts, rows, side.length or length))
        dump = open_dump(file)
        ranges = scan_ranges(str(path), dump, batches)
        broken = any(finding.problem == "not finite" for finding in ranges.findings)
        return Scan(ranges, first_nonfinite(dump, batches) if broken else None, tuple(said))


def _settle(side: FileSide, encoder: TextEncoder, texts: list[str], said: list[str]) -> None:
    """Where no name gives the inputs away, take the first order in which the file runs."""
    if not side.binding.guessed:
        return
    row = next(row for _, row in _batches(side, encoder, texts, 1, side.length or DEFAULT_LENGTH))
    for roles in (side.roles, *other_orders(side.binding)):
        try:
            side.output(row, roles)
        except DeviceError:
            continue
        if roles != side.roles:
            said.append(f"{side.path.name} does not run in that order: its inputs are taken as {', '.join(roles)}")
            side.reorder(roles)
        return


def _limit(path: Path) -> int | None:
    from pocketbert.artifacts import read_artifact

    return read_artifact(path).card.max_length if (path / "artifact.json").is_file() else None


@contextmanager
def _as_file(found: Path, said: list[str]) -> Iterator[Path]:
    """The file itself, or a temporary ONNX export of a torch folder that keeps the stock mask."""
    if found.is_file():
        yield found
        return
    from pocketbert.export.single import build
    from pocketbert.export.task import which_task

    task = which_task(found)
    said.append(f"{found} is exported to ONNX for the scan ({task}), its stock mask kept")
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch:
        import onnx

        target = Path(scratch, "model.onnx")
        onnx.save(build(found, task, None, 17), target)
        yield target


def _rows(side: FileSide, encoder: TextEncoder, texts: list[str], rows: int, length: int) -> Iterator[Row]:
    """What the file's inputs get for every kind of probes."""
    for kind, row in _batches(side, encoder, texts, rows, length):
        yield kind, side.arrays(row)


def _batches(
    side: FileSide, encoder: TextEncoder, texts: list[str], rows: int, length: int
) -> Iterator[tuple[str, Batch]]:
    """Every kind of probes; a dynamic file gets them as wide as the longest row, so that shorter ones are padded."""
    probes = make_probes(encoder, texts, rows, length, seed=0, token_types="token_type_ids" in side.roles)
    width = length if side.length else int(probes.lengths().max())
    for index, kind in enumerate(probes.kinds):
        yield kind, {name: values[index : index + 1, :width] for name, values in probes.inputs.items()}
