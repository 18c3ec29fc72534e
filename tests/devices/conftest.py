"""A tiny trained student, a teacher, and the student's ONNX export: everything that a benchmark needs, in seconds."""

from pathlib import Path

import pytest

from pocketbert.artifacts import Artifact, ArtifactCard, write_artifact
from pocketbert.data.dataset import LabelSet
from pocketbert.data.tokenize import TextEncoder

LABELS = LabelSet(("fruit", "tool", "pet"))
WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry"],
    "tool": ["hammer", "saw", "drill", "wrench"],
    "pet": ["cat", "dog", "hamster", "parrot"],
}
FILLERS = ["a", "the", "new", "old", "red", "small", "buy", "cheap"]
LENGTH = 16


def toy_texts() -> list[str]:
    return [f"{filler} {other} {word}" for words in WORDS.values() for word in words
            for filler in FILLERS[:4] for other in FILLERS[4:]]  # fmt: skip


def toy_targets() -> list[int]:
    return [index for index in range(3) for _ in range(4 * 4 * 4)]


def save_tokenizer(folder: Path) -> None:
    from transformers import BertTokenizerFast

    vocab = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *FILLERS,
        *(word for words in WORDS.values() for word in words),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)


def train_classifier(layers: int, folder: Path, name: str) -> Artifact:
    """A BERT of width 32 trained for 60 steps on the toy task, saved as an artifact."""
    import torch

    from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig

    torch.manual_seed(13)
    save_tokenizer(folder)
    encoder = {
        "model_type": "bert", "vocab_size": 25, "hidden_size": 32, "num_hidden_layers": layers,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64,
    }  # fmt: skip
    model = PocketBertClassifier(PocketBertConfig(encoder=encoder, num_labels=3))
    rows = TextEncoder(folder).encode(toy_texts(), LENGTH, pad_to=LENGTH)
    batch = {key: torch.from_numpy(values).long() for key, values in rows.items()}
    labels = torch.tensor(toy_targets())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    card = ArtifactCard(name=name, format="torch", model_file="model.safetensors", max_length=64)
    return write_artifact(folder, card, LABELS, TextEncoder(folder))


def export_onnx(source: Artifact, folder: Path) -> Artifact:
    import torch

    from pocketbert.modeling.classifier import PocketBertClassifier

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = PocketBertClassifier.from_pretrained(source.folder).eval()

        def forward(self, input_ids, attention_mask, token_type_ids):  # type: ignore[no-untyped-def]
            return self.model(input_ids, attention_mask, token_type_ids).logits

    folder.mkdir(parents=True)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = torch.ones(1, LENGTH, dtype=torch.long)
    torch.onnx.export(
        Logits(), (example, example, 0 * example), folder / "model.onnx", input_names=names, output_names=["logits"],
        dynamic_axes={name: {0: "rows", 1: "tokens"} for name in names}, dynamo=False,
    )  # fmt: skip
    card = ArtifactCard(name="onnx-fp32", format="onnx", model_file="model.onnx", max_length=64)
    return write_artifact(folder, card, LABELS, TextEncoder(source.folder))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return train_classifier(2, tmp_path_factory.mktemp("teacher"), "teacher")


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return train_classifier(1, tmp_path_factory.mktemp("student"), "student")


@pytest.fixture(scope="session")
def onnx(student: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_onnx(student, tmp_path_factory.mktemp("onnx") / "model")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with one device, as the current directory."""
    (tmp_path / "devices.yaml").write_text("devices:\n  local: {kind: local}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path
