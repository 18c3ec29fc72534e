"""Quantization-aware training: what it simulates is what the converted file computes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from safetensors.torch import load_file
from torch import Tensor, nn

from pocketbert.artifacts import read_artifact
from pocketbert.data.dataset import LabelSet, read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.params import QatParams
from pocketbert.quantize.calibration import CalibrationRows
from pocketbert.quantize.options import OnnxStaticOptions, RecipeOptions, TfliteStaticOptions
from pocketbert.quantize.recipes_onnx import static_int8
from pocketbert.quantize.recipes_tflite import static_wi8_ai8, weight_only_wi8_afp32
from pocketbert.stage import Metrics, StageContext, _context
from pocketbert.training.loop.reporter import Reporter
from pocketbert.training.qat import train_quantized
from pocketbert.training.qat_modules import (
    ActivationFakeQuantize,
    fake_quantize_rows,
    insert_fake_quantization,
)
from pocketbert.training.soft_labels import read_soft_labels
from stages.qat import Inputs, Outputs, qat
from tests.export.trained import BERT, MAX_LENGTH, SEQUENCE_LENGTH, Exported, exported, make_texts, trained_classifier
from tests.training.conftest import FAST, Taught
from tests.training.toy import LABELS

Recipe = Callable[[Path, Path, Any, CalibrationRows], Any]
LAYERS = BERT["num_hidden_layers"]


def activation_ranges(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Range of each fake-quantized activation: `<linear layer>.input` and `.output`."""
    return {
        name.removesuffix("_fake_quant"): module.range
        for name, module in model.named_modules()
        if isinstance(module, ActivationFakeQuantize)
    }


def logits_of(model: PocketBertClassifier, batch: dict[str, Tensor]) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = model.eval()(**batch).logits.numpy()
    return found


def batch_of(folder: Path, rows: int, seed: int = 5) -> dict[str, Tensor]:
    """Rows without padding (all are cut to one length), so that their ranges are the same in every runtime."""
    ids = TextEncoder(folder).encode_rows(make_texts(4 * rows, seed)[0], MAX_LENGTH)
    chosen = torch.tensor([row for row in ids if len(row) == MAX_LENGTH][:rows])
    assert len(chosen) == rows
    return {"input_ids": chosen, "attention_mask": torch.ones_like(chosen)}


def train(taught: Taught, folder: Path, **params: Any) -> Metrics:
    given = QatParams.model_validate({"enabled": True, **FAST, "learning_rate": 5e-4, "epochs": 2, **params})
    soft = read_soft_labels(taught.soft, taught.train.texts)
    return train_quantized(
        given, LABELS, taught.teacher, soft, taught.train, taught.valid, folder / "classifier", folder / "plots"
    )


@pytest.fixture(scope="module")
def trained(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    root = tmp_path_factory.mktemp("qat")
    return root, train(taught, root)


def test_the_result_is_a_plain_float_classifier(taught: Taught, trained: tuple[Path, Metrics]) -> None:
    root, metrics = trained
    before, after = (load_file(f / "model.safetensors") for f in (taught.teacher, root / "classifier"))
    assert before.keys() == after.keys()
    model = load_classifier(root / "classifier")
    assert {type(m) for n, m in model.named_modules() if n.endswith(("query", "linear_0"))} == {nn.Linear}
    assert metrics["reload_proven"] is True
    assert metrics["best_epoch"] == 0 or not torch.equal(before["head.linear_1.weight"], after["head.linear_1.weight"])
    assert read_artifact(root / "classifier").name == "student"
    assert read_labels(root / "classifier") == LABELS


def test_epoch_0_is_the_classifier_as_it_came_under_fake_quantization(trained: tuple[Path, Metrics]) -> None:
    root, metrics = trained
    rows = (root / "plots" / "curve.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0.0", "1.0", "2.0"]
    assert float(rows[1].split(",")[3]) == pytest.approx(metrics["valid_accuracy_before"])
    assert metrics["valid_accuracy"] >= metrics["valid_accuracy_before"]  # type: ignore[operator]


def test_every_linear_layer_has_a_range_on_both_ends_but_the_logits() -> None:
    folder = trained_classifier("bert")
    model = load_classifier(folder)
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    insert_fake_quantization(model, [batch_of(folder, 4)])
    ranges = activation_ranges(model)
    ends = {f"{layer}.{end}" for layer in layers for end in ("input", "output")}
    assert set(ranges) == ends - {"head.linear_1.output"}
    assert all(low <= 0.0 <= high and low < high for low, high in ranges.values())


def test_ranges_are_fixed_in_evaluation_and_follow_in_training() -> None:
    folder = trained_classifier("bert")
    model, batch = load_classifier(folder), batch_of(folder, 4)
    insert_fake_quantization(model, [batch])
    before = activation_ranges(model)
    other = batch | {"input_ids": batch["input_ids"].flip(1)}
    logits_of(model, other)
    assert activation_ranges(model) == before
    model.train()(**other)
    assert activation_ranges(model) != before


def test_a_stopped_training_goes_on_with_the_ranges_it_had(
    taught: Taught, trained: tuple[Path, Metrics], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def stop(_self: Reporter, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 40:
            raise KeyboardInterrupt

    token = _context.set(StageContext("qat", tmp_path / "state", None))
    try:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Reporter, "on_step_end", stop)
            train(taught, tmp_path)
        with caplog.at_level("INFO", "pocketbert"):
            metrics = train(taught, tmp_path)
    finally:
        _context.reset(token)
    # The end of the first of two epochs of 30 steps.
    assert "checkpoint-30" in caplog.text
    root, undisturbed = trained
    ours, theirs = (load_file(f / "classifier" / "model.safetensors") for f in (tmp_path, root))
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5
    # Under rounding, which depends on the ranges.
    assert metrics["valid_loss"] == pytest.approx(undisturbed["valid_loss"], rel=1e-3)


def test_other_labels_are_refused(taught: Taught, tmp_path: Path) -> None:
    soft = read_soft_labels(taught.soft, taught.train.texts)
    others = LabelSet(("a", "b", "c", "d"))
    with pytest.raises(CheckpointError, match="other labels"):
        train_quantized(
            QatParams(), others, taught.teacher, soft, taught.train, taught.valid, tmp_path / "c", tmp_path / "p"
        )


def test_rows_round_to_their_own_scale() -> None:
    rows = torch.tensor([[0.5, -127.0, 3.4], [0.0, 0.0, 0.0], [1.27, 0.004, -0.006]], requires_grad=True)
    rounded = fake_quantize_rows(rows)
    expected = torch.tensor([[0.0, -127.0, 3.0], [0.0, 0.0, 0.0], [1.27, 0.0, -0.01]])
    assert torch.allclose(rounded, expected, atol=1e-6)
    rounded.sum().backward()
    assert torch.equal(rows.grad, torch.ones(3, 3))  # type: ignore[arg-type]


def test_switched_off_it_passes_the_classifier_through(tmp_path: Path) -> None:
    finetuned = trained_classifier("bert")
    outputs = Outputs(tmp_path / "classifier", tmp_path / "plots")
    assert qat(QatParams(), Inputs(finetuned=finetuned), outputs) == {"enabled": False}
    ours, theirs = (sorted(p.name for p in folder.iterdir()) for folder in (outputs.classifier, finetuned))
    assert ours == theirs
    assert all((outputs.classifier / name).read_bytes() == (finetuned / name).read_bytes() for name in ours)
    assert len((outputs.plots / "curve.csv").read_text(encoding="utf-8").splitlines()) == 1


@dataclass(frozen=True)
class Stub:
    """A two-layer classifier, its exports, rows without padding, and its logits on them in float."""

    models: Exported
    batch: dict[str, Tensor]
    rows: CalibrationRows
    plain: NDArray[np.float32]
    fake: PocketBertClassifier

    @classmethod
    def of(cls, family: str) -> "Stub":
        models = exported(family, fused=False)
        model, batch = load_classifier(models.classifier), batch_of(models.classifier, 24)
        count, width = batch["input_ids"].shape
        inputs = {name: np.zeros((count, SEQUENCE_LENGTH), np.int32) for name in (*batch, "token_type_ids")}
        for name, tensor in batch.items():
            inputs[name][:, :width] = tensor.numpy()
        plain = logits_of(model, batch)
        # One batch of all the rows: the moving average is then the range itself.
        insert_fake_quantization(model, [batch])
        return cls(models, batch, CalibrationRows(np.arange(count), inputs, ""), plain, model)

    def tflite(self, recipe: Recipe, options: RecipeOptions, target: Path) -> tuple[NDArray[np.float32], Any]:
        """Logits of the file that a TFLite recipe makes, and what the recipe says it did."""
        done = recipe(self.models.tflite / "model.tflite", target, options, self.rows)
        runner = Interpreter(model_path=str(target)).get_signature_runner("serving_default")
        names = runner.get_input_details()
        rows = [{name: self.rows.inputs[name][row : row + 1] for name in names} for row in range(len(self.rows))]
        return np.concatenate([runner(**row)["logits"] for row in rows]), done

    def onnx(self, options: OnnxStaticOptions, target: Path) -> NDArray[np.float32]:
        """Logits of the QDQ file that the static ONNX recipe makes."""
        static_int8(self.models.onnx / "model.onnx", target, options, self.rows)
        session = InferenceSession(target)
        feed = {name.name: self.rows.inputs[name.name].astype(np.int64) for name in session.get_inputs()}
        logits: NDArray[np.float32] = session.run(["logits"], feed)[0]
        return logits


@pytest.mark.parametrize("family", ["bert", "mobilebert"])
def test_two_layers_convert_to_what_was_simulated(family: str, tmp_path: Path) -> None:
    """On a stub: weights round to the bit as they do in the files, activations have the same ranges."""
    stub = Stub.of(family)
    watched = [m for m in stub.fake.modules() if isinstance(m, ActivationFakeQuantize)]

    # Weights and tables alone: the same logits.
    for module in watched:
        module.disable_fake_quant()
    stored, _ = stub.tflite(weight_only_wi8_afp32, RecipeOptions(), tmp_path / "weights.tflite")
    assert np.abs(stored - stub.plain).mean() > 1e-4
    assert np.abs(stored - logits_of(stub.fake, stub.batch)).max() < 1e-4
    for module in watched:
        module.enable_fake_quant()

    # Everything static: rounding of the same kind. (Two int8 runtimes differ among themselves as much.)
    simulated = logits_of(stub.fake, stub.batch)
    rounding = np.abs(simulated - stub.plain).mean()
    static, done = stub.tflite(static_wi8_ai8, TfliteStaticOptions(crest_factor_max=1e9), tmp_path / "static.tflite")
    assert np.abs(static - simulated).mean() < 1.1 * rounding
    assert rounding / 2 < np.abs(static - stub.plain).mean() < 2 * rounding
    qdq = stub.onnx(OnnxStaticOptions(crest_factor_max=1e9, quantize_outputs=True), tmp_path / "static.onnx")
    assert rounding / 3 < np.abs(qdq - stub.plain).mean() < 3 * rounding

    # Each op's ranges are those of a layer, to a step of int8; the logits' range is not simulated.
    theirs = [tuple(found[:2]) for found in done["ranges_min_max_crest"].values()]
    ours = list(activation_ranges(stub.fake).values())
    matched = [any(same_range(a, b) for b in ours) for a in theirs]
    # The converter folds 1 / sqrt(d) into the queries' ops, and a bias of MobileBERT's into the ops behind it.
    folded = {"bert": 1, "mobilebert": 2}[family] * LAYERS
    assert matched.count(False) <= 1 + folded


def same_range(a: tuple[float, float], b: tuple[float, float]) -> bool:
    step = (b[1] - b[0]) / 255
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= step
