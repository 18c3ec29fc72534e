"""Let DVC measure again on a device that was down: it takes the rows that say so for the stage's result."""

import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from pocketbert.errors import StorageError

RESULTS = Path("results/benchmark")
AGAIN = "To measure it again: `pocketbert devices retry`, then `dvc repro`. DVC takes the stage for done."


def unreached(names: Collection[str], results: Path = RESULTS) -> Iterator[tuple[str, str]]:
    """Of the devices `names` those whose last benchmark gave nothing, each with the reason; raises StorageError."""
    for name in names:
        path = results / name / "benchmark.json"
        if not path.is_file():
            continue
        try:
            error = json.loads(path.read_text(encoding="utf-8"))["device"]["error"]
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise StorageError(
                f"{path} cannot be read: {problem}", "Delete its folder, and run `dvc repro`."
            ) from problem
        if error is not None:
            yield name, str(error).removesuffix(AGAIN).rstrip()


def forget(name: str, results: Path = RESULTS) -> None:
    """Delete the rows of a device: what is missing is stale."""
    try:
        shutil.rmtree(results / name)
    except OSError as error:
        raise StorageError(f"{results / name} cannot be deleted: {error.strerror}", "Delete it.") from error


def retry(names: Collection[str]) -> list[tuple[str, str]]:
    """Forget the rows of those that gave nothing; returns their names and reasons."""
    waiting = list(unreached(names))
    for name, _ in waiting:
        forget(name)
    return waiting
