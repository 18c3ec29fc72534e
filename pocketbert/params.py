"""The pydantic model of params.yaml: one submodel a stage, frozen, unknown keys refused."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pocketbert.errors import ParamsError
from pocketbert.redaction import hide_secrets

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """Base of every section: immutable, and a key that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HubDataset(Section):
    """A Hugging Face hub data set, used in place of `prepare.path`."""

    name: str
    config: str | None = None
    revision: str | None = None


class PrepareParams(Section):
    """Where the labelled text comes from and how it is split."""

    path: Path = Path("data/raw/commodities.csv")
    hub: HubDataset | None = None
    text_column: str | None = None
    label_column: str | None = None
    # Set (for instance "|") where one row may carry several labels; the task is then multi-label.
    label_separator: str | None = None
    valid_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.15
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.15
    seed: Seed = 13


class AugmentParams(Section):
    """Extra training rows made from existing ones; `factor` 0 switches augmentation off."""

    factor: Annotated[int, Field(ge=0, le=20)] = 0
    synonym_probability: Fraction = 0.1
    deletion_probability: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    # Folder of NLTK data or of a WordNet dictionary; found by itself when null.
    wordnet: Path | None = None
    seed: Seed = 13


class HeadParams(Section):
    """The classifier head: `depth` linear layers with an activation and dropout between them."""

    depth: Annotated[int, Field(ge=1, le=8)] = 2
    # Width of the inner layers; the encoder's hidden size when null.
    width: Positive | None = None
    activation: Literal["leaky_relu", "relu", "gelu", "tanh"] = "leaky_relu"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1


class OptimizerParams(Section):
    """AdamW with a linear warm-up and decay; the head may learn faster than the encoder."""

    epochs: Annotated[float, Field(gt=0.0)] = 4
    batch_size: Positive = 64
    learning_rate: Rate = 1e-4
    head_learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_fraction: Fraction = 0.1
    max_length: Annotated[int, Field(ge=2)] = 128
    # Best checkpoint by validation accuracy (else the last one) becomes the output.
    keep_best: bool = True
    seed: Seed = 13


class TeachParams(OptimizerParams):
    """Fine-tuning of the teacher."""

    checkpoint: str = "sentence-transformers/all-MiniLM-L6-v2"
    revision: str | None = None
    pooling: Literal["mean", "cls"] = "mean"
    head: HeadParams = HeadParams()
    label_smoothing: Fraction = 0.05


class SoftenParams(Section):
    """The teacher's logits over the training text."""

    batch_size: Positive = 128
    # A text file (a row a line) or a table with a text column: distilled from, never trained on with labels.
    unlabelled: Path | None = None


class CutStudent(Section):
    """A student made of some of the teacher's own layers."""

    kind: Literal["cut"] = "cut"
    # A number of layers, taken evenly, or their indices in the teacher.
    layers: Positive | list[Annotated[int, Field(ge=0)]] = 3


class CheckpointStudent(Section):
    """A student that starts from a checkpoint of its own (hub id or local folder)."""

    kind: Literal["checkpoint"]
    checkpoint: str
    revision: str | None = None


class ConfigStudent(Section):
    """A student with fresh weights; `config` is passed to the transformers configuration of `family`."""

    kind: Literal["config"]
    family: Literal["bert", "distilbert", "mobilebert"]
    config: dict[str, int | float | bool | str] = {}
    # Folder or hub id of the tokenizer; the teacher's when null.
    tokenizer: str | None = None


class HiddenLoss(Section):
    """Hidden-state or attention matching: pairs of (student layer, teacher layer), 0 is the embeddings."""

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    layer_map: list[tuple[int, int]] = []

    @model_validator(mode="after")
    def _mapped(self) -> "HiddenLoss":
        if self.weight > 0 and not self.layer_map:
            raise ValueError("a weight above 0 needs a layer_map such as [[1, 2], [3, 6]]")
        return self


class DistillParams(OptimizerParams):
    """loss = alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE (Hinton et al. 2015, section 2)."""

    epochs: Annotated[float, Field(gt=0.0)] = 8
    learning_rate: Rate = 2e-4
    student: Annotated[CutStudent | CheckpointStudent | ConfigStudent, Field(discriminator="kind")] = CutStudent()
    pooling: Literal["mean", "cls"] = "mean"
    head: HeadParams = HeadParams()
    temperature: Annotated[float, Field(gt=0.0, le=100.0)] = 2.0
    alpha: Fraction = 0.9
    hidden: HiddenLoss = HiddenLoss()
    attention: HiddenLoss = HiddenLoss()


class FinetuneParams(OptimizerParams):
    """Hard-label tuning of the student's head (and encoder, unless frozen)."""

    epochs: Annotated[float, Field(gt=0.0)] = 1
    head: HeadParams = HeadParams()
    freeze_encoder: bool = True
    label_smoothing: Fraction = 0.05


class ExportOnnxParams(Section):
    """torch -> ONNX through optimum."""

    opset: Annotated[int, Field(ge=11, le=21)] = 17
    # Additive attention mask of a padded position: representable in fp16, unlike the stock -3.4e38.
    mask_value: Annotated[float, Field(lt=0.0)] = -1e4


class ExportTfliteParams(Section):
    """torch -> our TensorFlow graph -> TFLite."""

    sequence_length: Annotated[int, Field(ge=2)] = 128
    mask_value: Annotated[float, Field(lt=0.0)] = -1e4


class ValidateParams(Section):
    """Limits of the conversion proof; logit differences are relative to the spread (standard deviation)."""

    rows: Positive = 128
    logit_rel_diff_max: Annotated[float, Field(gt=0.0)] = 1e-4
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
    options: dict[str, bool | int | float | str | list[str]] = {}


class QuantizeParams(Section):
    """The matrix of format x recipe; each key names a stage instance and an artifact."""

    calibration: CalibrationParams = CalibrationParams()
    recipes: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")], RecipeParams] = {}


class EvaluateParams(Section):
    """Accuracy of every artifact on the test split, at the shape that the device will run."""

    sequence_length: Annotated[int, Field(ge=2)] = 128
    threads: Positive = 2


class BenchmarkParams(Section):
    """Latency of every artifact; rounds are interleaved, each in a fresh process."""

    runs: Annotated[int, Field(ge=10)] = 120
    rounds: Positive = 3
    warmup: Annotated[int, Field(ge=1)] = 10
    threads: Positive = 1
    sequence_length: Annotated[int, Field(ge=2)] = 128
    # Rows whose logits are proven on the device against torch's.
    proof_rows: Positive = 32
    timeout_s: Positive = 600
    seed: Seed = 13


class Budget(Section):
    """Upper limits for the rows whose artifact and device match the patterns (shell wildcards)."""

    artifact: str
    device: str = "*"
    accuracy_drop_max: float | None = None
    latency_p90_ms_max: Annotated[float, Field(gt=0.0)] | None = None
    size_bytes_max: Positive | None = None


class ReportParams(Section):
    """Budgets, and what the report shows."""

    budgets: list[Budget] = []
    # Classes shown in the confusion matrix (the most confused ones).
    worst_classes: Positive = 12


class PublishParams(Section):
    """Where runs are remembered. The URI's default is MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."""

    tracking_uri: str | None = None
    experiment: str = "pocketbert"
    registered_model: str = "pocketbert"
    # Artifacts registered as model versions (shell wildcards over artifact names).
    register_artifacts: list[str] = ["tflite-*"]

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        # params.yaml is committed, and DVC copies it into dvc.lock.
        if uri is not None and hide_secrets(uri) != uri:
            raise ValueError("holds a password, which git would keep: set it in MLFLOW_TRACKING_URI instead")
        return uri


class Params(Section):
    """params.yaml."""

    prepare: PrepareParams = PrepareParams()
    augment: AugmentParams = AugmentParams()
    teach: TeachParams = TeachParams()
    soften: SoftenParams = SoftenParams()
    distill: DistillParams = DistillParams()
    finetune: FinetuneParams = FinetuneParams()
    export_onnx: ExportOnnxParams = ExportOnnxParams()
    export_tflite: ExportTfliteParams = ExportTfliteParams()
    validate_: ValidateParams = Field(default=ValidateParams(), alias="validate")
    quantize: QuantizeParams = QuantizeParams()
    evaluate: EvaluateParams = EvaluateParams()
    benchmark: BenchmarkParams = BenchmarkParams()
    report: ReportParams = ReportParams()
    publish: PublishParams = PublishParams()

    def section(self, stage: str) -> Section:
        """The submodel of a stage (pydantic owns the attribute name `validate`)."""
        return getattr(self, "validate_" if stage == "validate" else stage)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate params.yaml; raises ParamsError with one line a mistake."""
    return parse_params(read_yaml(path), path)


def parse_params(raw: object, path: Path) -> Params:
    """Validate what was read from `path`; raises ParamsError."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(
            f"{path} is not valid: " + "; ".join(_explain(e, Params) for e in error.errors()),
            f"Correct {path}; pocketbert/params.py lists every key.",
        ) from error


def read_yaml(path: Path) -> object:
    """Parse a YAML file (1.2 rules, as DVC does); raises ParamsError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        with path.open(encoding="utf-8") as stream:
            return YAML(typ="safe").load(stream) or {}
    except FileNotFoundError as error:
        raise ParamsError(f"{path} does not exist here", "Run from the root of the project.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ParamsError(f"{path} is not valid YAML: {line}", "Correct the named line.") from error


def _explain(error: Any, model: type[BaseModel]) -> str:
    """One pydantic error as one clause, with the nearest known key for a misspelt one."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return hide_secrets(f"{where} = {error['input']!r}: {error['msg']}")
    known = _keys_at(model, error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {where!r}, {hint}"


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that are allowed at `location` inside `model` (union members are all searched)."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        deeper: list[type[BaseModel]] = []
        for candidate in models:
            for name, field in candidate.model_fields.items():
                if part in (name, field.alias):
                    deeper += _models_in(field.annotation)
            # A discriminated union adds its tag ("cut") to the location; it names no field.
            if not any(part in (n, f.alias) for n, f in candidate.model_fields.items()):
                deeper.append(candidate)
        models = deeper or models
    return sorted({f.alias or n for m in models for n, f in m.model_fields.items()})


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    args: tuple[object, ...] = getattr(annotation, "__args__", ())
    return [model for arg in args for model in _models_in(arg)]
