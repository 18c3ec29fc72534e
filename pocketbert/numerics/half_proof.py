"""Half precision around a conversion: the source's ranges before it, no NaN and no infinity in the file after it."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.numerics.dump import TensorDump, open_dump, probe_rows
from pocketbert.numerics.nonfinite import NonFinite, first_nonfinite
from pocketbert.numerics.probes import Probes, make_probes
from pocketbert.numerics.ranges import RangeReport, scan_ranges

RANGES_FILE = "ranges.json"
# Rows run of each kind: real, longest, holes, shortened, segments, padding.
ROWS_PER_KIND = 2
# Findings that are logged; the file has them all.
LOGGED = 4

_log = logging.getLogger("pocketbert")


def scan_source(variant: str, source: Artifact, texts: Sequence[str], folder: Path) -> RangeReport:
    """Scan the fp32 `source` of an fp16 variant, write ranges.json into `folder` and warn of what fp16 cannot hold.

    Raises DeviceError where the source does not run.
    """
    dump = open_dump(source.model_path)
    report = scan_ranges(str(source.model_path), dump, probe_rows(dump, _probes(source, dump, texts), ROWS_PER_KIND))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RANGES_FILE).write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    for finding in report.roots[:LOGGED]:
        _log.warning("%s: %s does not fit into fp16: %s", variant, source.name, finding)
    if more := len(report.findings) - len(report.roots[:LOGGED]):
        _log.warning("%s: %d more tensors of %s do not fit into fp16: see %s", variant, more, source.name, RANGES_FILE)
    return report


def prove_finite(artifact: Artifact, texts: Sequence[str]) -> None:
    """Run a converted file with every tensor in view; raises ProofError that names the first NaN or infinity."""
    dump = open_dump(artifact.model_path)
    found = first_nonfinite(dump, probe_rows(dump, _probes(artifact, dump, texts), ROWS_PER_KIND))
    if found:
        raise ProofError(f"{artifact.name}: {found}", way_out(found, artifact.card.format))


def explain_nonfinite(artifact: Artifact, probes: Probes, error: ProofError) -> ProofError:
    """`error` about logits, with the tensor where the first NaN or infinity arose, where there is one."""
    dump = open_dump(artifact.model_path)
    found = first_nonfinite(dump, probe_rows(dump, probes, len(probes)))
    return ProofError(f"{error.cause}: {found}", way_out(found, artifact.card.format)) if found else error


def way_out(found: NonFinite, file_format: str) -> str:
    """What to change for a NaN or an infinity of this cause."""
    if "mask" in found.cause or any("(mask" in read for read in found.inputs):
        return f"Export it with a mask of -1e4 (export_{file_format}.mask_value): fp16 ends at 65504."
    if file_format == "onnx" and not found.row:
        return "A constant of the source does not fit into fp16: `pocketbert scan` on the source names it."
    if file_format == "onnx":
        return f"Keep that node in fp32: options: {{exclude: ['^{re.escape(found.node)}$']}} of the recipe."
    return (
        "Exclude that tensor: options: {exclude: [its name]} of the recipe; `pocketbert scan` on the source tells more."
    )


def _probes(artifact: Artifact, dump: TensorDump, texts: Sequence[str]) -> Probes:
    """Probes of the artifact's own length; more real rows than are run cost nothing."""
    names = {spec.name for spec in dump.inputs}
    return make_probes(
        TextEncoder(artifact.folder), texts, 8, artifact.card.max_length, seed=0, token_types="token_type_ids" in names
    )
