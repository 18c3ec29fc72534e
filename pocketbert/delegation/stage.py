"""Every TFLite artifact against the rules, and against the GPU of a device that has one."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import read_labels, read_split
from pocketbert.delegation.analyze import Delegation, find_profile, predict_file
from pocketbert.delegation.measure import Measurement, Reference, measure, run_reference
from pocketbert.delegation.predict import Prediction, explained
from pocketbert.delegation.rows import real_rows
from pocketbert.devices.inventory import find_device
from pocketbert.errors import PocketBertError
from pocketbert.params import DelegateParams
from pocketbert.runtimes.litert_log import NoGpuError, require_gpu
from pocketbert.stage import Metrics

FILE = "delegate.json"
_log = logging.getLogger("pocketbert")


@dataclass
class Gpu:
    """The GPU that the artifacts are run on, or why there is none."""

    device: str
    software_gpu: bool = False
    # Why nothing is measured.
    missing: str | None = None


def delegate_artifacts(params: DelegateParams, artifacts: Sequence[Artifact], prepared: Path, folder: Path) -> Metrics:
    """Write delegate.json: for each artifact what each profile predicts and what the GPU did.

    A device without a `gpu` entry is not asked. A driver that is missing, crashes or hangs costs its rows and not the
    stage. Raises ParamsError for an unknown profile or device.
    """
    gpu = _find_gpu(params.device)
    rules = [find_profile(name) for name in params.profiles]
    entries: dict[str, dict[str, Any]] = {}
    for artifact in artifacts:
        predicted = {profile.name: predict_file(artifact.model_path, profile) for profile in rules}
        asked = next((predicted[profile.name] for profile in rules if profile.measurable), None)
        measured = _measure(params, artifact, prepared, gpu, asked)
        agreed = Delegation(artifact.name, asked, tuple(measured)).agreed if asked else None
        entries[artifact.name] = {
            "md5": artifact.md5(),
            "predicted": {
                name: asdict(found) | {"delegated": found.delegated, "whole": found.whole}
                for name, found in predicted.items()
            },
            "measured": {m.precision: m.as_dict() for m in measured} or None,
            "agreed": agreed,
        }
        _log.info("%s: %s", artifact.name, _summary(entries[artifact.name]))
    document = {"device": gpu.device, "missing": gpu.missing, "artifacts": entries}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
    return {name: _headline(entry) for name, entry in entries.items()} | {"measured": gpu.missing is None}


def _find_gpu(device: str) -> Gpu:
    entry = find_device(device)
    if entry.gpu is None:
        return Gpu(device, missing=f"devices.yaml gives {device} no gpu")
    if entry.kind != "local":
        return Gpu(device, missing=f"{device} is another machine: its GPU is measured by benchmark@{device}")
    if entry.gpu.driver != "vulkan":
        return Gpu(device, missing=f"the runtime here needs Vulkan, and {device} has {entry.gpu.driver}")
    return Gpu(device, entry.gpu.software_gpu)


def _measure(
    params: DelegateParams, artifact: Artifact, prepared: Path, gpu: Gpu, predicted: Prediction | None
) -> list[Measurement]:
    """A measurement a precision; none where there is no GPU, which is noted in `gpu`."""
    if gpu.missing:
        return []
    texts = read_split(prepared / "valid.parquet", read_labels(prepared)).texts
    rows = real_rows(artifact, texts, params.rows)

    @cache
    def reference() -> Reference:
        return run_reference(artifact.model_path, rows, params.timeout_s)

    found: list[Measurement] = []
    for precision in params.precisions:
        try:
            one = measure(artifact.model_path, rows, precision, reference, params.timeout_s)
            if one.placement is not None:
                require_gpu(one.placement, software_gpu=gpu.software_gpu)
            found.append(replace(one, kind="real"))
        except NoGpuError as error:
            gpu.missing = str(error)
            _log.warning("%s: nothing is measured, the rules alone are asked: %s", gpu.device, error)
            return []
        except PocketBertError as error:
            found.append(Measurement(precision, error=explained(error, predicted), kind="real"))
            _log.warning("%s in %s: %s", artifact.name, precision, found[-1].error)
    return found


def _headline(entry: dict[str, Any]) -> Metrics:
    """Figures for MLflow; None is unknown."""
    predicted = {
        f"predicted_ops_{name.replace('.', '_')}": found["delegated"] for name, found in entry["predicted"].items()
    }
    measured = entry["measured"] or {}
    first = next(iter(measured.values()), None)
    placed = first and first["placement"]
    return {
        "total_ops": next(iter(entry["predicted"].values()))["total"],
        **predicted,
        "delegated_ops": placed and placed["delegated"],
        "partitions": placed and placed["partitions"],
        "agreed": entry["agreed"],
        **{f"rel_diff_{precision}": found["rel_diff"] for precision, found in measured.items()},
    }


def _summary(entry: dict[str, Any]) -> str:
    said = [f"{p['delegated']} of {p['total']} by {name}" for name, p in entry["predicted"].items()]
    for precision, found in (entry["measured"] or {}).items():
        difference = "NaN" if found["rel_diff"] is None else f"{found['rel_diff']:.1e}"
        result = "failed" if found["error"] else "unproven" if found["unproven"] else f"difference {difference}"
        said.append(f"{found['delegated']} on the GPU in {precision}, {result}")
    return "; ".join(said)
