"""Parameters of the stages that convert, prove, quantize and measure."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pocketbert.params.section import Fraction, Positive, Section, Seed


class ExportOnnxParams(Section):
    """torch -> ONNX through optimum."""

    opset: Annotated[int, Field(strict=True, ge=11, le=21)] = 17
    # Additive attention mask of a padded position: representable in fp16, unlike the stock -3.4e38.
    mask_value: Annotated[float, Field(strict=True, lt=0.0)] = -1e4


class ExportTfliteParams(Section):
    """torch -> our TensorFlow graph -> TFLite."""

    sequence_length: Annotated[int, Field(strict=True, ge=2)] = 128
    mask_value: Annotated[float, Field(strict=True, lt=0.0)] = -1e4


class ValidateParams(Section):
    """Limits of the conversion proof; logit differences are relative to the spread (standard deviation)."""

    rows: Positive = 128
    logit_rel_diff_max: Annotated[float, Field(strict=True, gt=0.0)] = 1e-4
    agreement_min: Fraction = 1.0
    seed: Seed = 13


class CalibrationParams(Section):
    """Training rows that static quantization sees."""

    rows: Positive = 256
    seed: Seed = 13
    # Percentile of an activation's values within which its range lies, such as 99.99; null: the whole range counts.
    clip: Annotated[float, Field(strict=True, gt=50.0, lt=100.0)] | None = None


class SensitivityParams(Section):
    """How `exclude: auto` looks for the operations that must stay in float."""

    # Validation rows by which every trial is judged.
    rows: Positive = 512
    seed: Seed = 13
    # Copies that are quantized and run, at most.
    max_runs: Annotated[int, Field(strict=True, ge=12)] = 40
    # Percentage points that the quantized model may lose on those rows against the unquantized one.
    accuracy_drop_max: Annotated[float, Field(strict=True, ge=0.0)] = 0.3
    # Largest logit difference relative to the spread of the logits; null: no limit.
    logit_rel_diff_max: Annotated[float, Field(strict=True, gt=0.0)] | None = None


class RecipeParams(Section):
    """One quantized artifact: a recipe's name plus overrides of its options."""

    format: Literal["onnx", "tflite"]
    recipe: str
    options: dict[str, bool | int | float | str | list[str]] = Field(default_factory=dict)
    # full; trimmed: the tokens of the training text and an alphabet; a number: these, filled up with frequent ones.
    vocabulary: Literal["full", "trimmed"] | Positive = "full"
    # Beside the recipe that it serves, so that a change here reruns this recipe only.
    sensitivity: SensitivityParams | None = None

    @model_validator(mode="after")
    def _read_by_auto_only(self) -> "RecipeParams":
        if self.sensitivity is not None and self.options.get("exclude") != "auto":
            raise ValueError("has settings of sensitivity, which only `options: {exclude: auto}` reads")
        return self


class Objective(Section):
    """Which artifact is shipped: chosen among the measured ones on one device, by validation rows."""

    kind: Literal["smallest", "fastest", "most_accurate"] = "fastest"
    # Percentage points of validation accuracy that it may lose against the teacher.
    accuracy_drop_max: Annotated[float, Field(strict=True)] = 1.0
    device: str = "local"
    # Only files of this format; either one when null.
    format: Literal["onnx", "tflite"] | None = None


class QuantizeParams(Section):
    """The matrix of format x recipe; each key names a stage instance and an artifact."""

    calibration: CalibrationParams = CalibrationParams()
    objective: Objective = Objective()
    recipes: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")], RecipeParams] = Field(default_factory=dict)


class EvaluateParams(Section):
    """Accuracy of every artifact on the test split, at the shape that the device will run."""

    sequence_length: Annotated[int, Field(strict=True, ge=2)] = 128
    threads: Positive = 2


class BenchmarkParams(Section):
    """Latency of every artifact; rounds are interleaved, each in a fresh process."""

    runs: Annotated[int, Field(strict=True, ge=10)] = 120
    rounds: Positive = 3
    warmup: Annotated[int, Field(strict=True, ge=1)] = 10
    threads: Positive = 1
    sequence_length: Annotated[int, Field(strict=True, ge=2)] = 128
    # Rows whose logits are proven on the device against torch's.
    proof_rows: Positive = 32
    timeout_s: Positive = 600
    seed: Seed = 13
