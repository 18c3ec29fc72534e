"""Whether a finished pipeline meets the project's targets, all from one run of it.

    python benchmarks/targets.py [FOLDER]

FOLDER is a project whose `dvc repro` has ended. Prints a table; exit code 1 where a target is missed. Artifacts are
picked by validation rows (the shipped one by `quantize.objective`, the smallest one by its drop there) and judged by
test rows.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pocketbert.errors import PocketBertError  # noqa: E402
from pocketbert.provenance import processor_name  # noqa: E402
from pocketbert.report.sources import read_json  # noqa: E402

# Of the spread of the logits.
FP32_LOGIT_DIFF, FP16_LOGIT_DIFF = 1e-4, 1e-2
# Percentage points of test accuracy: the shipped int8 file against fp32, the smallest file against the teacher.
INT8_DROP, SMALLEST_DROP = 0.3, 1.0
SPEED_UP, SMALLEST_BYTES = 2.5, 8_000_000
FP32_TFLITE = "tflite-fp32"

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One target: what it asks for, what was measured on which artifact."""

    target: str
    artifact: str
    measured: str
    met: bool


@dataclass(frozen=True)
class Run:
    """What a finished pipeline wrote, with figures as numbers and unknown ones as None."""

    # Rows of one device of results.csv by artifact; `logit_rel_diff` is the largest that any stage found.
    rows: dict[str, Row]
    # The artifact that is shipped, if any.
    chosen: str | None


def read_run(folder: Path) -> Run:
    """Read report/ and results/ of a project; raises PocketBertError where its pipeline has not ended."""
    choice = read_json(folder / "report/choice.json")
    path = folder / "report/results.csv"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            table = [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(stream)]
    except OSError as error:
        raise PocketBertError(f"{path} cannot be read: {error}", "Run `dvc repro` in that folder.") from error
    rows = {str(row["artifact"]): row for row in table if row["device"] == choice["objective"]["device"]}
    others = {row["artifact"]: [row["logit_rel_diff"]] for row in read_json(folder / "results/evaluate/evaluate.json")}
    for name, export in read_json(folder / "results/validate/validate.json")["artifacts"].items():
        others[name].append(export["logits"]["max_rel_diff"])
    for name, row in rows.items():
        known = [diff for diff in (row["logit_rel_diff"], *others.get(name, ())) if diff is not None]
        row["logit_rel_diff"] = max(known, default=None)
    return Run(rows, choice["chosen"])


def judge(run: Run) -> Iterator[Verdict]:
    """A verdict a target; one whose figure is unknown is missed."""
    fp32 = [row for row in run.rows.values() if row["recipe"] == "none" and row["format"] != "torch"]
    yield _closest("fp32 ONNX and TFLite: logit error < 1e-4 of the spread", fp32, FP32_LOGIT_DIFF)
    fp16 = [row for row in run.rows.values() if row["precision"] == "fp16"]
    yield _closest("fp16: logit error < 1 % of the spread", fp16, FP16_LOGIT_DIFF)
    yield from _judge_chosen(run)
    yield _judge_smallest(run)


def _closest(target: str, rows: list[Row], limit: float) -> Verdict:
    """The worst of the rows against a limit of the logit error."""
    unknown = [row for row in rows if row["logit_rel_diff"] is None]
    if not rows or unknown:
        return Verdict(target, ", ".join(row["artifact"] for row in unknown) or "none", "unknown", False)
    worst = max(rows, key=lambda row: float(row["logit_rel_diff"]))
    return Verdict(target, worst["artifact"], f"{worst['logit_rel_diff']:.1e}", worst["logit_rel_diff"] < limit)


def _judge_chosen(run: Run) -> Iterator[Verdict]:
    """The shipped artifact, which must be an int8 one, against the unquantized files."""
    accuracy = f"chosen int8: accuracy within {INT8_DROP} point of fp32"
    speed = f"chosen int8: >= {SPEED_UP} times as fast as the fp32 TFLite file, one thread"
    row = run.rows.get(run.chosen or "")
    if row is None or row["precision"] != "int8":
        what = "none is chosen" if row is None else f"it is {row['precision']}"
        yield from (Verdict(target, run.chosen or "none", what, False) for target in (accuracy, speed))
        return
    lost = 100 * (run.rows[f"{row['format']}-fp32"]["accuracy"] - row["accuracy"])
    yield Verdict(accuracy, row["artifact"], f"{lost:+.2f} points lost", lost <= INT8_DROP)
    base = run.rows[FP32_TFLITE]
    if None in (base["latency_p50_ms"], row["latency_p50_ms"]) or (base["threads"], row["threads"]) != (1, 1):
        yield Verdict(speed, row["artifact"], "not measured on one thread", False)
        return
    times = base["latency_p50_ms"] / row["latency_p50_ms"]
    yield Verdict(speed, row["artifact"], f"{times:.2f} times", times >= SPEED_UP)


def _judge_smallest(run: Run) -> Verdict:
    """The smallest file among those that keep the limit on the validation rows, judged by the test rows."""
    target = f"smallest with <= {SMALLEST_DROP} point lost against the teacher: <= {SMALLEST_BYTES / 1e6:g} MB"
    within = [
        row
        for row in run.rows.values()
        if row["format"] != "torch" and row["error"] is None and row["valid_accuracy_drop"] <= SMALLEST_DROP
    ]
    if not within:
        return Verdict(target, "none", "every file loses more on the validation rows", False)
    row = min(within, key=lambda candidate: int(candidate["size_bytes"]))
    measured = f"{row['size_bytes'] / 1e6:.2f} MB, {row['accuracy_drop']:.2f} points lost on test, "
    measured += f"{row['valid_accuracy_drop']:.2f} on validation"
    met = row["size_bytes"] <= SMALLEST_BYTES and row["accuracy_drop"] <= SMALLEST_DROP
    return Verdict(target, row["artifact"], measured, met)


def _number(text: str) -> Any:
    """A cell of results.csv: None where it is empty, a number where it is one."""
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def show(folder: Path, write: Callable[[str], None] = print) -> bool:
    """Write the table; True where every target is met."""
    verdicts = list(judge(read_run(folder)))
    write("| target | artifact | measured | |\n|---|---|---|---|")
    for verdict in verdicts:
        outcome = "met" if verdict.met else "MISSED"
        write(f"| {verdict.target} | {verdict.artifact} | {verdict.measured} | {outcome} |")
    return all(verdict.met for verdict in verdicts)


def main() -> None:
    """Print the table of targets; exit 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT, help="a project whose pipeline has run")
    arguments = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {processor_name()}, {arguments.folder}\n")
    try:
        met = show(arguments.folder)
    except PocketBertError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
