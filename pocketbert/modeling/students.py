"""Students: some of the teacher's layers, a checkpoint of their own, or an architecture with fresh weights."""

import difflib
import itertools
import logging
from pathlib import Path

from torch import Tensor, nn
from transformers import AutoConfig

from pocketbert.data.dataset import LabelSet
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ParamsError
from pocketbert.modeling.assemble import Pooling, encoder_dict, new_classifier, save_tokenizer
from pocketbert.modeling.checkpoints import resolve_checkpoint
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.teacher import open_teacher
from pocketbert.modeling.weights import first_line
from pocketbert.params import CheckpointStudent, ConfigStudent, CutStudent, DistillParams, HeadParams

logger = logging.getLogger("pocketbert")


def build_student(
    params: DistillParams, labels: LabelSet, teacher: PocketBertClassifier, teacher_folder: Path, output: Path
) -> tuple[PocketBertClassifier, TextEncoder]:
    """The student that params.yaml describes, and its tokenizer, written into `output`.

    A head is copied where its shape and what it is fed (pooling) agree with its source's, else it is fresh.
    """
    student = params.student
    if isinstance(student, CutStudent):
        model = cut_student(teacher, student.layers, params.pooling, params.head, labels)
        return model, save_tokenizer(teacher_folder, output)
    if isinstance(student, CheckpointStudent):
        source = resolve_checkpoint(student.checkpoint, student.revision)
        return _from_checkpoint(source, params, labels), save_tokenizer(source, output)
    tokenizer_folder = teacher_folder
    if student.tokenizer is not None:
        tokenizer_folder = resolve_tokenizer(student.tokenizer)
    encoder = save_tokenizer(tokenizer_folder, output)
    return _from_config(student, encoder, params, labels), encoder


def choose_layers(layers: int | list[int], total: int) -> list[int]:
    """Indices of the layers to keep out of `total`: evenly spaced with both ends, or as listed.

    Evenly: index i of n is floor(i * (total - 1) / (n - 1)), so 3 of 6 are 0, 2 and 5.
    """
    if isinstance(layers, list):
        if not layers or any(b <= a for a, b in itertools.pairwise(layers)) or layers[-1] >= total:
            raise ParamsError(
                f"distill.student.layers = {layers} does not fit the teacher's {total} layers",
                f"List indices from 0 to {total - 1}, each once and in ascending order.",
            )
        return layers
    if layers > total:
        raise ParamsError(
            f"distill.student.layers = {layers}, but the teacher that it is cut from has only {total}",
            f"Ask for at most {total} layers, or start the student from a checkpoint or a config.",
        )
    return [index * (total - 1) // max(layers - 1, 1) for index in range(layers)]


def cut_student(
    teacher: PocketBertClassifier, layers: int | list[int], pooling: Pooling, head: HeadParams, labels: LabelSet
) -> PocketBertClassifier:
    """A student of the teacher's embeddings, of the chosen layers, and of its head where that fits."""
    stack, total = _layer_stack(teacher)
    kept = choose_layers(layers, total)
    config = teacher.config.encoder_config
    config.num_hidden_layers = len(kept)
    student = new_classifier(encoder_dict(config), pooling, head, labels)
    renamed = {f"{stack}.{old}.": f"{stack}.{new}." for new, old in enumerate(kept)}
    student.encoder.load_state_dict(_take_layers(teacher.encoder.state_dict(), stack, renamed))
    copy_head(teacher, student)
    logger.info("the student keeps the teacher's layers %s of %d", kept, total)
    return student


def _layer_stack(model: PocketBertClassifier) -> tuple[str, int]:
    """Name and length of the encoder's list of layers."""
    total = int(model.encoder.config.num_hidden_layers)
    for name, module in model.encoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == total and "." in name:
            return name, total
    raise ParamsError(
        f"a {model.encoder.config.model_type} teacher has no list of layers to cut from",
        "Use a student of kind checkpoint or config.",
    )


def _take_layers(state: dict[str, Tensor], stack: str, renamed: dict[str, str]) -> dict[str, Tensor]:
    taken = {name: tensor for name, tensor in state.items() if not name.startswith(f"{stack}.")}
    for old, new in renamed.items():
        taken |= {new + name.removeprefix(old): state[name] for name in state if name.startswith(old)}
    return taken


def copy_head(source: PocketBertClassifier, target: PocketBertClassifier) -> bool:
    """Copy the head where its shape, its activation and the pooling before it agree; say so where they do not."""
    ours, theirs = target.head.state_dict(), source.head.state_dict()
    same_shape = {name: tensor.shape for name, tensor in ours.items()} == {k: t.shape for k, t in theirs.items()}
    a, b = source.config.head_params, target.config.head_params
    if (
        not same_shape
        or source.config.pooling != target.config.pooling
        or (a.depth > 1 and a.activation != b.activation)
    ):
        logger.info("the head is fresh: its shape or its pooling is not that of the model it comes from")
        return False
    target.head.load_state_dict(theirs)
    return True


def _from_checkpoint(source: Path, params: DistillParams, labels: LabelSet) -> PocketBertClassifier:
    model, fitted = open_teacher(source, params.pooling, params.head, labels)
    if not fitted:
        return model
    student = new_classifier(model.config.encoder, params.pooling, params.head, labels)
    student.encoder.load_state_dict(model.encoder.state_dict())
    copy_head(model, student)
    return student


def resolve_tokenizer(name: str) -> Path:
    """The folder of a tokenizer: a local folder (weights are not needed), or a checkpoint's."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else resolve_checkpoint(name)


def _from_config(
    student: ConfigStudent, encoder: TextEncoder, params: DistillParams, labels: LabelSet
) -> PocketBertClassifier:
    known = AutoConfig.for_model(student.family)
    allowed = {*known.to_dict(), *known.attribute_map}
    for key in student.config:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            raise ParamsError(
                f"distill.student.config has the unknown key {key!r}",
                f"Did you mean {near[0]!r}?" if near else f"Use the keys of transformers' {type(known).__name__}.",
            )
    size = {"vocab_size": encoder.vocabulary_size, "pad_token_id": encoder.pad_id}
    try:
        config = AutoConfig.for_model(student.family, **(size | student.config))
        if config.num_hidden_layers < 1:
            raise ValueError(f"it has {config.num_hidden_layers} layers")
        return new_classifier(encoder_dict(config), params.pooling, params.head, labels)
    except (ValueError, TypeError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise ParamsError(
            f"distill.student.config makes no {student.family} model: {first_line(error)}",
            "Correct the named sizes (hidden_size must be a multiple of num_attention_heads).",
        ) from error
