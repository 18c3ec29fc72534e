"""Small trained classifiers of every family, as artifact folders: made once a run, in seconds.

Trained, because models with random weights hardly depend on their input: agreement on them proves nothing.
"""

import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pocketbert.artifacts import ArtifactCard, write_artifact
from pocketbert.data.dataset import LabelSet
from pocketbert.data.tokenize import TextEncoder
from pocketbert.export.onnx import export_onnx
from pocketbert.export.tflite import export_tflite
from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig
from pocketbert.params import ExportOnnxParams, ExportTfliteParams, HeadParams

CLASSES, WORDS, MAX_LENGTH, SEQUENCE_LENGTH = 4, 60, 24, 32
SIZES = {"vocab_size": 5 + WORDS, "max_position_embeddings": 40, "pad_token_id": 0}
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
MOBILE = {
    **BERT,
    "embedding_size": 16,
    "intra_bottleneck_size": 24,
    "num_feedforward_networks": 2,
    "hidden_act": "relu",
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **BERT},
    "bert-gelu_new": {"model_type": "bert", **BERT, "hidden_act": "gelu_new", "type_vocab_size": 1},
    "roberta": {"model_type": "roberta", **BERT, "type_vocab_size": 1},
    "distilbert": {"model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "mobilebert": {"model_type": "mobilebert", **MOBILE},
    "mobilebert-layer_norm": {
        "model_type": "mobilebert",
        **MOBILE,
        "normalization_type": "layer_norm",
        "use_bottleneck_attention": True,
    },
    "mobilebert-plain": {
        "model_type": "mobilebert",
        **MOBILE,
        "use_bottleneck": False,
        "trigram_input": False,
        "embedding_size": 32,
        "num_feedforward_networks": 1,
    },
}
# The three families.
MAIN_FAMILIES = ("bert", "distilbert", "mobilebert")


def make_texts(rows: int, seed: int) -> tuple[list[str], torch.Tensor]:
    """Texts of 3 to 30 words; the class is that of most of the words (word i belongs to class i % CLASSES)."""
    random = np.random.default_rng(seed)
    texts, targets = [], []
    for _ in range(rows):
        target = int(random.integers(CLASSES))
        words = random.integers(WORDS, size=random.integers(3, 31))
        own = random.random(len(words)) < 0.5
        words = np.where(own, words - words % CLASSES + target, words)
        texts.append(" ".join(f"w{word}" for word in words))
        targets.append(target)
    return texts, torch.tensor(targets)


def build_classifier(family: str, head: HeadParams | None = None, pooling: str = "mean") -> PocketBertClassifier:
    """A classifier with the initial weights of its family."""
    torch.manual_seed(7)
    config = PocketBertConfig(
        encoder={**SIZES, **FAMILIES[family]},
        pooling=pooling,
        head=(head or HeadParams()).model_dump(),
        num_labels=CLASSES,
    )
    return PocketBertClassifier(config)


@functools.cache
def trained_classifier(family: str, pooling: str = "mean", steps: int = 60) -> Path:
    """Artifact folder of a classifier that has learned `make_texts`; never write into it."""
    folder = Path(tempfile.mkdtemp(prefix=f"pocketbert-{family}-"))
    write_tokenizer(folder)
    model = train(build_classifier(family, pooling=pooling), TextEncoder(folder), steps)
    return write_classifier(model, folder)


def write_classifier(model: PocketBertClassifier, folder: Path) -> Path:
    """Save a classifier into a folder that already holds its tokenizer."""
    model.save_pretrained(folder)
    card = ArtifactCard(name="classifier", format="torch", model_file="model.safetensors", max_length=MAX_LENGTH)
    write_artifact(folder, card, LabelSet(tuple(f"class {i}" for i in range(CLASSES))), TextEncoder(folder))
    return folder


def train(model: PocketBertClassifier, encoder: TextEncoder, steps: int) -> PocketBertClassifier:
    """AdamW on random batches, segments and masks varied so that their parameters learn as well."""
    torch.manual_seed(7)
    # Threads cost more than they give at this size, the more so on busy cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(steps):
        texts, targets = make_texts(32, seed=step)
        batch = {name: torch.from_numpy(rows).long() for name, rows in encoder.encode(texts, MAX_LENGTH).items()}
        batch["token_type_ids"] = torch.randint(2, batch["input_ids"].shape) * batch["attention_mask"]
        loss = model(**batch, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    torch.set_num_threads(threads)
    return model.eval()


def write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer with BERT's special tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate([*special, *(f"w{i}" for i in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}), encoding="utf-8")


@dataclass(frozen=True)
class Exported:
    """A trained classifier and its exports."""

    classifier: Path
    onnx: Path
    tflite: Path


@functools.cache
def exported(family: str, *, fused: bool = True) -> Exported:
    """The artifacts of a family's trained classifier; never write into them."""
    classifier, root = trained_classifier(family), Path(tempfile.mkdtemp(prefix=f"pocketbert-{family}-exports-"))
    export_onnx(ExportOnnxParams(), classifier, root / "onnx")
    params = ExportTfliteParams(sequence_length=SEQUENCE_LENGTH)
    export_tflite(params if fused else params.model_copy(update={"fuse": ()}), classifier, root / "tflite")
    return Exported(classifier, root / "onnx", root / "tflite")
