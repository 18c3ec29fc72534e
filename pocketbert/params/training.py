"""Parameters of the training stages."""

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pocketbert.params.section import Fraction, Positive, Rate, Section, Seed


class HeadParams(Section):
    """The classifier head: `depth` linear layers with an activation and dropout between them."""

    depth: Annotated[int, Field(strict=True, ge=1, le=8)] = 2
    # Width of the inner layers; the encoder's hidden size when null.
    width: Positive | None = None
    activation: Literal["leaky_relu", "relu", "gelu", "tanh"] = "leaky_relu"
    dropout: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.1


class OptimizerParams(Section):
    """AdamW with a linear warm-up and decay; the head may learn faster than the encoder."""

    epochs: Annotated[float, Field(strict=True, gt=0.0)] = 4
    batch_size: Positive = 64
    learning_rate: Rate = 1e-4
    head_learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(strict=True, ge=0.0)] = 0.01
    warmup_fraction: Fraction = 0.1
    max_length: Annotated[int, Field(strict=True, ge=2)] = 128
    # Best checkpoint by validation accuracy (else the last one) becomes the output.
    keep_best: bool = True
    seed: Seed = 13


class JointParams(OptimizerParams):
    """Training that several processes may share, each batch divided among them (docs/training.md)."""

    processes: Positive = 1


class TeachParams(JointParams):
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
    layers: int | list[int] = 3

    @field_validator("layers", mode="before")
    @classmethod
    def _cuttable(cls, layers: Any) -> Any:
        many = layers if isinstance(layers, list) else [layers]
        least = 0 if isinstance(layers, list) else 1
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in many)
        if not many or not whole or any(b <= a for a, b in itertools.pairwise(many)):
            raise ValueError("give a number of layers such as 3, or their indices in ascending order such as [0, 5]")
        return layers


class CheckpointStudent(Section):
    """A student that starts from a checkpoint of its own (hub id or local folder)."""

    kind: Literal["checkpoint"]
    checkpoint: str
    revision: str | None = None


class ConfigStudent(Section):
    """A student with fresh weights; `config` is passed to the transformers configuration of `family`."""

    kind: Literal["config"]
    family: Literal["bert", "distilbert", "mobilebert"]
    config: dict[str, int | float | bool | str] = Field(default_factory=dict)
    # Folder or hub id of the tokenizer; the teacher's when null.
    tokenizer: str | None = None


class HiddenLoss(Section):
    """Hidden-state or attention matching: pairs of (student layer, teacher layer), 0 is the embeddings."""

    weight: Annotated[float, Field(strict=True, ge=0.0)] = 0.0
    layer_map: list[tuple[int, int]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _mapped(self) -> "HiddenLoss":
        if self.weight > 0 and not self.layer_map:
            raise ValueError("a weight above 0 needs a layer_map such as [[1, 2], [3, 6]]")
        return self


class DistillParams(JointParams):
    """loss = alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE (Hinton et al. 2015, section 2)."""

    epochs: Annotated[float, Field(strict=True, gt=0.0)] = 8
    learning_rate: Rate = 2e-4
    student: Annotated[CutStudent | CheckpointStudent | ConfigStudent, Field(discriminator="kind")] = CutStudent()
    pooling: Literal["mean", "cls"] = "mean"
    head: HeadParams = HeadParams()
    temperature: Annotated[float, Field(strict=True, gt=0.0, le=100.0)] = 2.0
    alpha: Fraction = 0.9
    hidden: HiddenLoss = HiddenLoss()
    attention: HiddenLoss = HiddenLoss()


class FinetuneParams(OptimizerParams):
    """Hard-label tuning of the student's head (and encoder, unless frozen)."""

    epochs: Annotated[float, Field(strict=True, gt=0.0)] = 1
    head: HeadParams = HeadParams()
    freeze_encoder: bool = True
    label_smoothing: Fraction = 0.05


class QatParams(OptimizerParams):
    """Quantization-aware training of the tuned classifier, on the teacher's soft labels as in `distill`."""

    # False: the classifier goes through unchanged.
    enabled: bool = False
    epochs: Annotated[float, Field(strict=True, gt=0.0)] = 2
    learning_rate: Rate = 1e-4
    head_learning_rate: Rate = 2e-4
    temperature: Annotated[float, Field(strict=True, gt=0.0, le=100.0)] = 2.0
    alpha: Fraction = 0.9
