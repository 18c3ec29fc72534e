"""Parameters of the stages that convert, prove, quantize and measure."""

from typing import Annotated, Literal

from pydantic import Field

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


class RecipeParams(Section):
    """One quantized artifact: a recipe's name plus overrides of its options."""

    format: Literal["onnx", "tflite"]
    recipe: str
    options: dict[str, bool | int | float | str | list[str]] = Field(default_factory=dict)


class QuantizeParams(Section):
    """The matrix of format x recipe; each key names a stage instance and an artifact."""

    calibration: CalibrationParams = CalibrationParams()
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
