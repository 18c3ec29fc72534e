import logging
import math
from pathlib import Path

import pytest
import torch

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.numerics.attention import ROWS_PER_KIND, AttentionScan, judge_attention, scan_attention
from pocketbert.numerics.probes import Probes, make_probes
from pocketbert.numerics.validate import validate_exports
from pocketbert.params import ValidateParams
from tests.export.trained import MAIN_FAMILIES, exported, make_texts
from tests.numerics.edited import with_mask

TEXTS = make_texts(20, seed=99)[0]


def probes(artifact: Artifact) -> Probes:
    return make_probes(TextEncoder(artifact.folder), TEXTS, 4, artifact.card.max_length, seed=0, token_types=True)


def scan(artifact: Artifact) -> AttentionScan:
    found = scan_attention(artifact, probes(artifact))
    assert found is not None
    return found


def scores_of_torch(rows: Probes, width: int) -> float:
    """Largest |q k / sqrt(d)| of the toy BERT over the rows that are scanned, from its own modules."""
    model = load_classifier(exported("bert").classifier)
    first = [i for i, kind in enumerate(rows.kinds) if rows.kinds[:i].count(kind) < ROWS_PER_KIND]
    batch = {n: torch.from_numpy(v[first]).long() for n, v in rows.padded(width).items()}
    with torch.inference_mode():
        states = model(**batch, output_hidden_states=True).hidden_states
        largest = 0.0
        for state, layer in zip(states, model.encoder.encoder.layer, strict=False):
            q, k = (
                m(state).unflatten(-1, (2, 16)).transpose(1, 2)
                for m in (layer.attention.self.query, layer.attention.self.key)
            )
            largest = max(largest, (q @ k.mT / math.sqrt(16)).abs().max().item())
    return largest


def test_the_scores_are_those_of_torch_in_both_formats() -> None:
    tflite, onnx = (read_artifact(folder) for folder in (exported("bert").tflite, exported("bert").onnx))
    expected = scores_of_torch(probes(tflite), tflite.card.sequence_length)
    assert scan(tflite).score_max == pytest.approx(expected, rel=1e-4)
    rows = probes(onnx)
    assert scan(onnx).score_max == pytest.approx(scores_of_torch(rows, rows.inputs["input_ids"].shape[1]), rel=1e-4)


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_the_default_mask_hides_padding_in_every_family(family: str) -> None:
    for folder in (exported(family).onnx, exported(family).tflite):
        found = scan(read_artifact(folder))
        assert (found.mask_value, found.leak, found.fits_half) == (-1e4, 0.0, True)
        assert 0 < found.score_max < 100


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_mask_among_the_scores_is_refused(kind: str, tmp_path: Path) -> None:
    weak = with_mask(getattr(exported("bert"), kind), tmp_path / kind, -4.0)
    with pytest.raises(ProofError, match=r"the mask of -4 does not hide padding: .*layer \d.* Set export_.*mask_value"):
        judge_attention("it", scan(weak).as_dict())


def test_a_mask_that_a_score_pushes_out_of_fp16_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    far = with_mask(exported("bert").tflite, tmp_path / "far", -65503.9)
    found = scan(far)
    assert not found.fits_half
    with caplog.at_level(logging.WARNING, "pocketbert"):
        judge_attention("it", found.as_dict())
    assert "overflows fp16 where a score is added" in caplog.text


def test_a_mask_close_to_the_scores_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pocketbert"):
        judge_attention("it", AttentionScan(40.0, "layer 0", "real", -90.0, 0.0, "export_onnx.mask_value").as_dict())
        assert "is not far beyond the scores" in caplog.text
        caplog.clear()
        judge_attention("it", AttentionScan(40.0, "layer 0", "real", -1e4, 0.0, "export_onnx.mask_value").as_dict())
        judge_attention("it", None)
    assert not caplog.text


def test_validate_refuses_a_mask_among_the_scores_by_its_parameter(tmp_path: Path) -> None:
    weak = with_mask(exported("bert").onnx, tmp_path / "weak", -4.0)
    with pytest.raises(
        ProofError, match=r"^onnx-fp32: the mask of -4 does not hide padding.*Set export_onnx\.mask_value"
    ):
        validate_exports(
            ValidateParams(rows=4), exported("bert").classifier, [weak.folder], TEXTS, tmp_path / "results"
        )
