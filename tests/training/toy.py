"""A toy task that a tiny BERT learns in seconds: the class is told by one of four words among noise."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from pocketbert.data.dataset import LabelSet, Split

NOISE = ("red", "green", "blue", "dog", "cat", "car", "run", "walk", "eat", "sun", "moon", "rain")
SIGNS = ("alpha", "beta", "gamma", "delta")
LABELS = LabelSet(("first", "second", "third", "fourth"))
MULTI_LABELS = LabelSet(LABELS.names, "multi_label")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NOISE, *SIGNS)
SMALL = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
    "roberta": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64},
    "mobilebert": {
        "hidden_size": 32, "embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16,
        "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    },
}  # fmt: skip


def small_config(family: str, **changes: Any) -> Any:
    """A configuration of about 30,000 weights, with 40 positions."""
    settings = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 40, "pad_token_id": 0, **SMALL[family]}
    return AutoConfig.for_model(family, **(settings | changes))


def save_vocabulary(folder: Path, words: Sequence[str] = VOCABULARY) -> None:
    """A vocab.txt and nothing else of a tokenizer, as old checkpoints have it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def save_checkpoint(folder: Path, family: str = "bert", **changes: Any) -> Path:
    """A checkpoint with fresh weights and a vocab.txt."""
    torch.manual_seed(1)
    AutoModel.from_config(small_config(family, **changes)).save_pretrained(folder)
    save_vocabulary(folder)
    if family == "roberta":
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    return folder


def toy_split(rows: int, seed: int, labels: LabelSet = LABELS) -> Split:
    """Texts of 2 to 9 noise words and one sign (two signs now and then for a multi-label task)."""
    chance = random.Random(seed)
    texts, targets = [], np.zeros((rows, len(SIGNS)), dtype=np.float32)
    for row in range(rows):
        count = 1 if labels.problem_type == "single_label" else chance.choice((0, 1, 2))
        signs = chance.sample(range(len(SIGNS)), count)
        words = [*chance.choices(NOISE, k=chance.randint(2, 9)), *(SIGNS[sign] for sign in signs)]
        chance.shuffle(words)
        texts.append(" ".join(words))
        targets[row, signs] = 1.0
    if labels.problem_type == "single_label":
        return Split(texts, targets.argmax(axis=1).astype(np.int64))
    return Split(texts, targets)
