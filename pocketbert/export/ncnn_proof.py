"""Prove an ncnn artifact against its torch source, on the CPU and on this machine's GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import read_artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.numerics.logits import LogitComparison, compare_logits
from pocketbert.numerics.probes import make_probes
from pocketbert.runtimes.base import REL_DIFF_MAX, Accelerator, Placement, Precision
from pocketbert.runtimes.isolated import run_isolated
from pocketbert.runtimes.litert_log import NoGpuError

_RUNS: tuple[tuple[Accelerator, Precision], ...] = (("cpu", "fp32"), ("gpu", "fp32"), ("gpu", "fp16"))


@dataclass(frozen=True)
class NcnnRun:
    """One way to run the artifact; without a GPU there is neither a placement nor a comparison."""

    accelerator: Accelerator
    precision: Precision
    placement: Placement | None
    comparison: LogitComparison | None

    @property
    def right(self) -> bool | None:
        """Whether the logits are torch's; None where it was not run."""
        return None if self.comparison is None else self.comparison.max_rel_diff <= REL_DIFF_MAX[self.precision]


def prove_ncnn(classifier: Path, folder: Path, texts: Sequence[str], rows: int = 24, seed: int = 13) -> list[NcnnRun]:
    """Run real rows and the probes of asymmetric masks; raises ProofError, and DeviceError where a run fails."""
    from pocketbert.runtimes.torch_runtime import open_artifact

    artifact, source = read_artifact(folder), open_artifact(read_artifact(classifier), 1)
    length = artifact.card.sequence_length or artifact.card.max_length
    token_types = any(spec.name == "token_type_ids" for spec in source.inputs)
    probes = make_probes(TextEncoder(folder), texts, rows, artifact.card.max_length, seed=seed, token_types=token_types)
    feed: dict[str, NDArray[np.generic]] = dict(probes.padded(length))
    reference = source.run(probes.padded(length))
    found = [_run(artifact.model_path, feed, reference, *way) for way in _RUNS]
    for run in found:
        if run.right is False and run.comparison is not None:
            raise ProofError(
                f"ncnn on the {run.accelerator.upper()} in {run.precision} is {run.comparison.max_rel_diff:.1e} of the"
                f" spread from torch (limit {REL_DIFF_MAX[run.precision]:g})",
                "Use the TFLite export; please report this model.",
            )
    return found


def _run(
    model: Path,
    feed: dict[str, NDArray[np.generic]],
    reference: NDArray[np.float32],
    accelerator: Accelerator,
    precision: Precision,
) -> NcnnRun:
    try:
        run = run_isolated(model, feed, accelerator=accelerator, precision=precision)
    except NoGpuError:
        return NcnnRun(accelerator, precision, None, None)
    return NcnnRun(accelerator, precision, run.placement, compare_logits(reference, run.outputs))
