"""The teacher: a fine-tuned classifier taken as it is, or a checkpoint's encoder under a fresh head."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from pocketbert.data.dataset import LabelSet
from pocketbert.errors import ProofError
from pocketbert.modeling.assemble import Pooling, encoder_dict, label_names, load_encoder, new_classifier, read_config
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.weights import check_loaded, quiet_loading
from pocketbert.params import HeadParams

logger = logging.getLogger("pocketbert")

# transformers' own classification heads are two layers over the first token: the names of these layers, and the
# activation between them, by model type. (BERT calls the first one its pooling layer.)
STOCK_HEADS = {
    "bert": ("bert.pooler.dense", "classifier", "tanh"),
    "mobilebert": ("mobilebert.pooler.dense", "classifier", "tanh"),
    "distilbert": ("pre_classifier", "classifier", "relu"),
    "roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "camembert": ("classifier.dense", "classifier.out_proj", "tanh"),
}
# Of a stock and a rebuilt classifier in fp32: rounding of the same products, nothing more.
_SAME = 1e-4


def open_teacher(
    folder: Path, pooling: Pooling, head: HeadParams, labels: LabelSet
) -> tuple[PocketBertClassifier, bool]:
    """The classifier to train from the checkpoint in `folder`, and whether it is fine-tuned for the labels already."""
    config = read_config(folder)
    if config.model_type == "pocketbert":
        return _open_own(folder, pooling, head, labels)
    if _is_classifier(config) and set(label_names(config)) == set(labels.names):
        fitted = _rebuild(folder, config, labels)
        if fitted is not None:
            logger.info("%s is fine-tuned for these %d labels already", folder, len(labels))
            return fitted, True
    model = new_classifier(encoder_dict(config), pooling, head, labels)
    model.encoder.load_state_dict(load_encoder(folder, config).state_dict())
    return model, False


def _open_own(folder: Path, pooling: Pooling, head: HeadParams, labels: LabelSet) -> tuple[PocketBertClassifier, bool]:
    """From a classifier that pocketbert wrote: all of it where the labels are the same, else its encoder."""
    source = load_classifier(folder)
    names = label_names(source.config)
    if set(names) == set(labels.names) and len(names) == len(labels):
        logger.info("%s is fine-tuned for these %d labels already", folder, len(labels))
        model = new_classifier(source.config.encoder, source.config.pooling, source.config.head_params, labels)
        model.load_state_dict(source.state_dict())
        reorder_classes(last_linear(model), names, labels.names)
        return model, True
    model = new_classifier(source.config.encoder, pooling, head, labels)
    model.encoder.load_state_dict(source.encoder.state_dict())
    return model, False


def _is_classifier(config: PretrainedConfig) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or [])


def _rebuild(folder: Path, config: PretrainedConfig, labels: LabelSet) -> PocketBertClassifier | None:
    """A stock classifier in our own shape, proven equal; None where its head is none of `STOCK_HEADS`."""
    if config.model_type not in STOCK_HEADS:
        logger.info("the head of a %s classifier is not known here; a fresh one is trained", config.model_type)
        return None
    with quiet_loading():
        stock, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=torch.float32, local_files_only=True, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    check_loaded(folder, info, stock)
    first, last, activation = STOCK_HEADS[config.model_type]
    inner = dict(stock.named_modules()).get(first)
    # MobileBERT may do without the layer of its pooling.
    linears = [inner, stock.get_submodule(last)] if inner is not None else [stock.get_submodule(last)]
    head = HeadParams.model_validate({"depth": len(linears), "activation": activation})
    model = new_classifier(encoder_dict(config), "cls", head, labels)
    bare = {name: tensor for name, tensor in stock.base_model.state_dict().items() if not name.startswith("pooler.")}
    model.encoder.load_state_dict(bare)
    for index, linear in enumerate(linears):
        model.head.get_submodule(f"linear_{index}").load_state_dict(linear.state_dict())
    _prove_same(stock, model)
    reorder_classes(last_linear(model), label_names(config), labels.names)
    return model


def _prove_same(stock: PreTrainedModel, rebuilt: PocketBertClassifier) -> None:
    ids = torch.arange(5, 5 + 4 * 16).reshape(4, 16) % stock.get_input_embeddings().num_embeddings
    with torch.no_grad():
        expected, got = stock.eval()(input_ids=ids).logits, rebuilt.eval()(input_ids=ids).logits
    difference = float((expected - got).abs().max())
    if difference > _SAME * max(1.0, float(expected.abs().max())):
        raise ProofError(
            f"the rebuilt {type(stock).__name__} differs from the stock one by {difference:.1e}",
            "This is a bug; please report the checkpoint's name.",
        )


def last_linear(model: PocketBertClassifier) -> nn.Linear:
    """The layer of a classifier whose rows are its classes."""
    return model.head.get_submodule(f"linear_{model.config.head_params.depth - 1}")


def reorder_classes(layer: nn.Linear, have: tuple[str, ...], want: tuple[str, ...]) -> None:
    """Permute the rows of a classifier's last layer from the order `have` to the order `want`, in place."""
    order: Tensor = torch.tensor([have.index(name) for name in want])
    with torch.no_grad():
        layer.weight.copy_(layer.weight[order].clone())
        layer.bias.copy_(layer.bias[order].clone())
