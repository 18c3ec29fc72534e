"""A realistic set of results, written as the other stages write theirs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pocketbert.data.dataset import LabelSet, write_labels
from pocketbert.report.sources import Sources

# artifact, format, recipe, precision, size MB, accuracy, relative logit difference, p50 ms, memory MB
ARTIFACTS: list[tuple[str, str, str, str, float, float, float | None, float, float]] = [
    ("teacher", "torch", "none", "fp32", 91.2, 0.9640, None, 41.3, 520),
    ("student", "torch", "none", "fp32", 69.6, 0.9587, None, 21.4, 470),
    ("onnx-fp32", "onnx", "none", "fp32", 69.8, 0.9587, 3.1e-6, 17.2, 210),
    ("tflite-fp32", "tflite", "none", "fp32", 69.7, 0.9587, 2.4e-6, 14.9, 165),
    ("onnx-fp16", "onnx", "fp16", "fp16", 34.9, 0.9587, 1.9e-3, 23.8, 190),
    ("onnx-dynamic_int8", "onnx", "dynamic_int8", "int8", 17.7, 0.9553, 0.31, 7.9, 120),
    ("tflite-fp16", "tflite", "fp16", "fp16", 35.0, 0.9585, 1.7e-3, 15.1, 190),
    ("tflite-dynamic_wi8_afp32", "tflite", "dynamic_wi8_afp32", "int8", 17.9, 0.9580, 0.12, 5.2, 96),
    ("tflite-static_wi8_ai8", "tflite", "static_wi8_ai8", "int8", 18.1, 0.9313, 0.84, 20.6, 101),
]


def md5_of(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def class_names(count: int) -> list[str]:
    nouns = ["running shoes", "usb cables", "garden hoses", "coffee", "teapots", "bath towels", "desk lamps",
             "dog food", "phone cases", "board games"]  # fmt: skip
    return [nouns[i % 10] if i < 10 else f"{nouns[i % 10]} {'for children, outdoor' if i % 7 == 0 else i // 10}"
            for i in range(count)]  # fmt: skip


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")


def write_sources(root: Path, classes: int = 28, rows: int = 1200, devices: tuple[str, ...] = ("local",)) -> Sources:
    """Nine artifacts over `rows` test rows of `classes` classes, measured on the devices."""
    generator = np.random.default_rng(13)
    names = class_names(classes)
    _write_data(root / "data/prepared", names, rows)
    _write_evaluation(root / "results/evaluate", classes, rows, generator)
    for device in devices:
        _write_benchmark(root / "results/benchmark" / device, device, generator)
    proven = {
        name: {"md5": md5_of(name), "agreement_without_ties": 1.0, "ties": 0,
               "logits": {"max_abs_diff": 4.1e-6, "mean_abs_diff": 6.0e-7, "max_rel_diff": rel, "agreement": 1.0,
                          "spread": 1.71, "rows": 134},
               "tensors": {"compared": 54, "equal": 54, "missing": [], "unknown": [], "forms": {"identity": 54}}}
        for name, rel in (("onnx-fp32", 3.1e-6), ("tflite-fp32", 2.4e-6))
    }  # fmt: skip
    proof = {"params": {"rows": 128, "logit_rel_diff_max": 1e-4, "agreement_min": 1.0, "seed": 13},
             "probes": {"real": 128, "holes": 4, "padded": 2}, "artifacts": proven}  # fmt: skip
    write_json(root / "results/validate/validate.json", proof)
    write_json(root / "results/validate/layers.json", _layers())
    write_json(
        root / "models/classifier/config.json",
        {"encoder": {"model_type": "bert", "num_hidden_layers": 3, "hidden_size": 384, "num_attention_heads": 12,
                     "intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512},
         "pooling": "mean", "head": {"depth": 2, "width": None, "activation": "leaky_relu", "dropout": 0.1}},
    )  # fmt: skip
    curves = {}
    for stage, epochs, top in (("teach", 4, 0.966), ("distill", 8, 0.961), ("finetune", 1, 0.962)):
        curves[stage] = _write_curves(root / "plots" / stage, epochs, top, generator)
    return Sources(
        prepared=root / "data/prepared",
        classifier=root / "models/classifier",
        validated=root / "results/validate",
        evaluated=root / "results/evaluate",
        benchmarked=root / "results/benchmark",
        sensitivity=root / "results/sensitivity",
        curves=curves,
    )


def _layers() -> dict[str, Any]:
    """As validate writes it: two exports and the TensorFlow graph between them."""
    names = ["embeddings", "layer.0", "layer.1", "layer.2", "pooling", "head.linear_0", "logits"]
    artifacts: dict[str, Any] = {}
    for artifact, scale in (("onnx-fp32", 1e-6), ("tensorflow", 2e-6), ("tflite-fp32", 3e-6)):
        layers = [
            {"layer": name, "max_abs_diff": scale * (i + 1), "mean_abs_diff": scale / 9, "rel_diff": scale * (i + 2),
             "cosine": 0.9999999, "spread": 0.5, "place": None}
            for i, name in enumerate(names)
        ]  # fmt: skip
        artifacts[artifact] = {"rows": ["real", "real", "longest", "padding"], "unknown": None, "worst": "logits",
                               "first_divergence": None, "layers": layers}  # fmt: skip
    return {"limit": 1e-4, "artifacts": artifacts}


def _write_data(folder: Path, names: list[str], rows: int) -> None:
    folder.mkdir(parents=True)
    write_labels(LabelSet(tuple(names)), folder)
    write_json(
        folder / "report.json",
        {"source": {"all": "data/raw/commodities.csv"},
         "columns": {"text": "title", "label": "category", "label_separator": None}, "problem_type": "single_label",
         "rows_read": 8123, "rows": {"train": 5600, "valid": 1200, "test": rows},
         "classes": {name: {"train": 200, "valid": 40, "test": rows // len(names)} for name in names},
         "dropped": {"missing_text": 3, "missing_label": 5, "repeated": 92, "duplicate_in_train": 23,
                     "duplicate_in_valid": 0},
         "conflicting_texts": {"count": 12, "examples": {"a <b>mug</b>": ["teapots", "coffee"]}},
         "classes_that_differ_in_case_only": [],
         "text_length_chars": {"train": {"p05": 14, "p50": 38, "p95": 71, "p99": 88, "max": 124}}},
    )  # fmt: skip


def _write_evaluation(folder: Path, classes: int, rows: int, generator: np.random.Generator) -> None:
    labels = generator.integers(classes, size=rows)
    columns: dict[str, Any] = {"text_index": list(range(rows)), "label": labels.tolist()}
    document = []
    for name, kind, recipe, precision, size, accuracy, rel, *_ in ARTIFACTS:
        predicted = labels.copy()
        wrong = generator.choice(rows, size=round(rows * (1 - accuracy)), replace=False)
        # Errors cluster: a class is taken for a neighbour.
        predicted[wrong] = (labels[wrong] + generator.choice([1, 1, 1, 2, 5], size=len(wrong))) % classes
        columns[name] = predicted.tolist()
        share = float(np.mean(predicted == labels))
        document.append(
            {"artifact": name, "format": kind, "recipe": recipe, "precision": precision, "md5": md5_of(name),
             "size_bytes": round(size * 1e6), "sequence_length": 128, "rows": rows, "accuracy": share,
             "macro_f1": share - 0.002, "ece": 0.031, "accuracy_drop": 100 * (0.964 - share),
             "valid_rows": rows, "valid_accuracy": share, "valid_accuracy_drop": 100 * (0.964 - share),
             "logit_max_abs_diff": rel and 1.7 * rel, "logit_rel_diff": rel, "agreement": rel and 0.99,
             "runtime": "litert 2.3.0", "embeddings_bytes": round(size * 6e5), "encoder_bytes": round(size * 3e5),
             "head_bytes": round(size * 1e6) - round(size * 9e5) - 700, "other_bytes": 700, "vocabulary_tokens": 30522}
        )  # fmt: skip
    folder.mkdir(parents=True)
    write_json(folder / "evaluate.json", document)
    for table in ("predictions.parquet", "valid_predictions.parquet"):
        pq.write_table(pa.table(columns), folder / table)


def _write_benchmark(folder: Path, device: str, generator: np.random.Generator) -> None:
    engines = {"torch": "torch 2.13.0", "onnx": "onnxruntime 1.31.1", "tflite": "litert 2.3.0"}
    rows, raw = [], []
    for name, kind, recipe, precision, size, _, rel, p50, memory in ARTIFACTS:
        latencies = p50 * (1 + generator.gamma(1.2, 0.03, size=120))
        raw += [{"artifact": name, "round": i // 40, "run": i % 40, "latency_ms": v} for i, v in enumerate(latencies)]
        middle = float(np.median(latencies))
        rows.append(
            {"artifact": name, "md5": md5_of(name), "format": kind, "recipe": recipe, "precision": precision,
             "runtime": engines[kind], "accelerator": "cpu", "sequence_length": 128, "threads": 1,
             "size_bytes": round(size * 1e6), "latency_p50_ms": middle,
             "latency_p90_ms": float(np.quantile(latencies, 0.9)),
             "latency_p50_ci_ms": [0.99 * middle, 1.02 * middle], "runs": 120,
             "memory_baseline_bytes": 36_000_000, "memory_peak_bytes": round(memory * 1e6), "cpu_percent": 99.6,
             "power_mean_mw": None, "temperature_start_c": None, "temperature_end_c": None,
             "total_ops": 168 if kind == "tflite" else None, "delegated_ops": None, "partitions": None,
             "logit_max_abs_diff": rel and 1.7 * rel, "logit_rel_diff": rel, "agreement": rel and 0.985, "error": None}
        )  # fmt: skip
    facts = {"name": device, "kind": "local", "processor": "Example CPU @ 2.50GHz", "cores": 2,
             "memory_total_bytes": 8_100_000_000, "os": "Linux-6.1-x86_64-with-glibc2.36", "governor": None,
             "load_average_1min": 0.42, "temperature_source": None, "energy_source": None}  # fmt: skip
    document = {"device": facts, "harness": {"pocketbert": "0.1.0", "version": 1},
                "measured_at": "2026-01-01T12:00:00Z", "rows": rows}  # fmt: skip
    folder.mkdir(parents=True)
    write_json(folder / "benchmark.json", document)
    pq.write_table(pa.Table.from_pylist(raw), folder / "latencies.parquet")


def _write_curves(folder: Path, epochs: int, top: float, generator: np.random.Generator) -> Path:
    folder.mkdir(parents=True)
    curve = ["epoch,train_loss,valid_loss,valid_accuracy"]
    for epoch in range(1, epochs + 1):
        accuracy = top - 0.06 * np.exp(-epoch) * 3
        curve.append(f"{epoch},{1.1 / epoch:.4f},{0.9 / epoch + 0.2:.4f},{accuracy:.4f}")
    (folder / "curve.csv").write_text("\n".join(curve) + "\n", encoding="utf-8")
    loss = ["step,loss,learning_rate"]
    for step in range(10, 235 * epochs, 10):
        value = 0.25 + 3 * np.exp(-step / 150) + generator.normal(0, 0.03)
        loss.append(f"{step},{value:.4f},{1e-4 * (1 - step / (235 * epochs)):.2e}")
    (folder / "loss.csv").write_text("\n".join(loss) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """The realistic set, with its folder as the current directory."""
    monkeypatch.chdir(tmp_path)
    return write_sources(tmp_path)
