"""A small BERT masked-language model that has learned a toy language: words count up in steps of 1 to 3."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from transformers import BertConfig, BertForMaskedLM

from tests.export.trained import write_tokenizer

TOPICS, WORDS_EACH, FIRST, MASK, LENGTH = 6, 10, 5, 4, 14
# A word is 1.5 times as frequent as the next one of its topic, so that the five most frequent are no matter of luck.
FREQUENCIES = 1.5 ** -np.arange(WORDS_EACH)


def topic_rows(rows: int, seed: int) -> np.ndarray:
    """int64 [rows, LENGTH]: [CLS], 4 to 12 words of one topic, [SEP], padding; word i belongs to topic i % TOPICS."""
    random = np.random.default_rng(seed)
    ids = np.zeros((rows, LENGTH), dtype=np.int64)
    for row in ids:
        length, topic = random.integers(4, LENGTH - 1), random.integers(TOPICS)
        words = random.choice(WORDS_EACH, size=length, p=FREQUENCIES / FREQUENCIES.sum())
        row[0], row[length + 1] = 2, 3
        row[1 : length + 1] = FIRST + words * TOPICS + topic
    return ids


def topic_texts(rows: int, seed: int) -> list[str]:
    return [" ".join(f"w{i - FIRST}" for i in row if i >= FIRST) for row in topic_rows(rows, seed)]


@functools.cache
def topic_lm(steps: int = 120) -> Path:
    """Folder of save_pretrained with its tokenizer; never write into it."""
    folder = Path(tempfile.mkdtemp(prefix="pocketbert-mlm-"))
    write_tokenizer(folder)
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=FIRST + TOPICS * WORDS_EACH, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=48, max_position_embeddings=32, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    random = np.random.default_rng(5)
    for step in range(steps):
        ids = topic_rows(32, seed=step)
        masked = (random.random(ids.shape) < 0.3) & (ids >= FIRST)
        batch = torch.from_numpy(np.where(masked, MASK, ids))
        labels = torch.from_numpy(np.where(masked, ids, -100))
        loss = model(input_ids=batch, attention_mask=(batch > 0).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    model.save_pretrained(folder)
    return folder


def cast_naively(source: Path, target: Path) -> Path:
    """Every float constant and type of a graph as fp16, as naive converters do: -3.4e38 becomes -inf."""
    model = onnx.load(source)
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT

    def cast(tensor: onnx.TensorProto) -> None:
        if tensor.data_type == single:
            with np.errstate(over="ignore"):
                values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    for tensor in model.graph.initializer:
        cast(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                cast(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == single:
                attribute.i = half
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == single:
            value.type.tensor_type.elem_type = half
    onnx.save(model, target)
    return target
