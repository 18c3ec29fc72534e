"""Parameters of the stages that convert, prove, quantize and measure."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from pocketbert.params.section import Fraction, Positive, Section, Seed


class ExportOnnxParams(Section):
    """torch -> ONNX through optimum."""

    opset: Annotated[int, Field(strict=True, ge=11, le=21)] = 17
    # Additive attention mask of a padded position: representable in fp16, unlike the stock -3.4e38.
    mask_value: Annotated[float, Field(strict=True, lt=0.0)] = -1e4


# stock: as transformers' own TensorFlow classes. delegate: all of it on a GPU. embeddings: float embeddings as input,
# looked up on the host, for GPU delegates that refuse GATHER.
GraphProfile = Literal["stock", "delegate", "embeddings"]
# Exact algebraic rewrites (docs/fusion.md); one that a family has no use for changes nothing.
Fusion = Literal["embedding_sums", "trigrams", "query_scale", "layer_norm", "no_norm", "one_product", "split_sums"]
# Those that save operations. split_sums adds some: it is for the precision of fp16 on a GPU.
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)[:-1]


class GraphVariants(Section):
    """Forms of the TFLite graph that compute the same; `pocketbert tune` finds the fastest on a device."""

    # A linear layer as FULLY_CONNECTED or as CONV_2D of 1 x 1.
    linear: Literal["fully_connected", "conv"] = "fully_connected"
    # Attention on [1, heads, S, D] or on [heads, S, D].
    heads: Literal["4d", "3d"] = "4d"
    # tanh: an approximation of the exact one, off by up to 5e-4 a value; not equal, and never chosen unasked.
    gelu: Literal["exact", "tanh"] = "exact"


class ExportTfliteParams(Section):
    """torch -> our TensorFlow graph -> TFLite."""

    sequence_length: Annotated[int, Field(strict=True, ge=2)] = 128
    mask_value: Annotated[float, Field(strict=True, lt=0.0)] = -1e4
    profile: GraphProfile = "delegate"
    # Empty: none. `stock` is never fused.
    fuse: tuple[Fusion, ...] = FUSIONS
    variants: GraphVariants = GraphVariants()


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
    # shared: every token stays, but those that the training text lacks share the word embedding of the nearest one.
    vocabulary: Literal["full", "trimmed", "shared"] | Positive = "full"
    # How many tokens have a word embedding of their own where they are shared; null: those of the training text.
    vocabulary_rows: Positive | None = None
    # Beside the recipe that it serves, so that a change here reruns this recipe only.
    sensitivity: SensitivityParams | None = None

    @model_validator(mode="after")
    def _read_by_auto_only(self) -> "RecipeParams":
        if self.sensitivity is not None and self.options.get("exclude") != "auto":
            raise ValueError("has settings of sensitivity, which only `options: {exclude: auto}` reads")
        if self.vocabulary_rows is not None and self.vocabulary != "shared":
            raise ValueError("has vocabulary_rows, which only `vocabulary: shared` reads")
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


class SustainedParams(Section):
    """Artifacts that run without a pause after the rounds: what minute 30 looks like. 0 seconds is off."""

    seconds: Annotated[int, Field(strict=True, ge=0)] = 0
    # Shell wildcards over artifact names.
    artifacts: list[str] = Field(default_factory=lambda: ["*"])


class BenchmarkParams(Section):
    """Latency of every artifact; rounds are interleaved, each in a fresh process."""

    runs: Annotated[int, Field(strict=True, ge=10)] = 120
    rounds: Positive = 3
    warmup: Annotated[int, Field(strict=True, ge=1)] = 10
    threads: Positive = 1
    sequence_length: Annotated[int, Field(strict=True, ge=2)] = 128
    # Rows whose logits are proven on the device against torch's.
    proof_rows: Positive = 32
    # Test rows whose accuracy is taken on the device, the proof rows among them.
    accuracy_rows: Annotated[int, Field(strict=True, ge=0)] = 64
    # Rounds are added, up to max_rounds and for budget_s seconds, to artifacts whose 95 % interval of the median is
    # wider than this share of it; null adds none.
    ci_width: Annotated[float, Field(strict=True, gt=0.0, lt=1.0)] | None = None
    max_rounds: Positive = 12
    budget_s: Positive = 1800
    sustained: SustainedParams = SustainedParams()
    timeout_s: Positive = 600
    seed: Seed = 13
