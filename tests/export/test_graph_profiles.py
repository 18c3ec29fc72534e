"""The graph profiles stock, delegate and embeddings: the same classifier, proven the same way, for other runtimes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import COMPANIONS, read_artifact
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.delegation.analyze import predict
from pocketbert.delegation.operators import read_operators
from pocketbert.delegation.profiles import PROFILES
from pocketbert.errors import CheckpointError, ProofError
from pocketbert.export.tflite import export_tflite
from pocketbert.numerics.validate import validate_exports
from pocketbert.params import ExportTfliteParams, ValidateParams
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.host_lookup import WORDS_FILE, HostLookup
from pocketbert.runtimes.predict import TextClassifier
from tests.export.trained import MAIN_FAMILIES, SEQUENCE_LENGTH, exported, make_texts, trained_classifier

TEXTS = make_texts(24, seed=11)[0]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every family in the profiles that are not the default."""
    made = {}
    for family in MAIN_FAMILIES:
        for profile in ("stock", "embeddings"):
            folder = tmp_path_factory.mktemp(family) / profile
            params = ExportTfliteParams(sequence_length=SEQUENCE_LENGTH, profile=profile)
            export_tflite(params, trained_classifier(family), folder, TEXTS)
            made[family, profile] = folder
    return made


@pytest.mark.parametrize("profile", ["stock", "embeddings"])
@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_a_profile_passes_the_same_proof(artifacts, tmp_path, family, profile):
    folder = artifacts[family, profile]
    metrics = validate_exports(ValidateParams(rows=12), trained_classifier(family), [folder], TEXTS, tmp_path / "v")
    figures = metrics["tflite-fp32"]
    assert figures["logit_rel_diff"] < 1e-5
    assert figures["layers_compared"] >= 5
    assert figures["layer_rel_diff_max"] < 1e-4
    assert figures["tensors_equal"] == figures["tensors_compared"]


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_the_fused_default_passes_the_proof(tmp_path, family):
    folder = tmp_path / "tflite"
    params = ExportTfliteParams(sequence_length=SEQUENCE_LENGTH)
    made = export_tflite(params, trained_classifier(family), folder, TEXTS)
    assert made["fusions"] >= 3
    document = json.loads((folder / "fusions.json").read_text())
    assert all(f["float64_diff"] < document["limits"]["float64_diff"] for f in document["fusions"])
    metrics = validate_exports(ValidateParams(rows=12), trained_classifier(family), [folder], TEXTS, tmp_path / "v")
    figures = metrics["tflite-fp32"]
    assert figures["logit_rel_diff"] < 1e-5
    # States of a carried stream are read back into the model's own basis.
    assert figures["layers_compared"] >= 5
    assert figures["layer_rel_diff_max"] < 1e-4


def test_a_card_that_hides_its_fusions_fails_the_proof(tmp_path):
    folder = tmp_path / "tflite"
    shutil.copytree(exported("bert").tflite, folder)
    card = json.loads((folder / "artifact.json").read_text())
    assert "layer_norm" in card["fused"]
    (folder / "artifact.json").write_text(json.dumps(card | {"fused": []}))
    with pytest.raises(ProofError, match="tensors of the classifier are not in the file"):
        validate_exports(ValidateParams(rows=12), trained_classifier("bert"), [folder], TEXTS, tmp_path / "v")


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_embeddings_hold_no_lookup_and_no_integer(artifacts, family):
    operators = read_operators(artifacts[family, "embeddings"] / "model.tflite")
    assert not {op.kind for op in operators} & {"GATHER", "EMBEDDING_LOOKUP", "CAST"}
    runtime = open_runtime(artifacts[family, "embeddings"])
    assert {spec.dtype for spec in runtime.inputs} == {"float32"}
    names = ["word_embeddings", "position_embeddings"] if family == "mobilebert" else ["embeddings"]
    assert sorted(spec.name for spec in runtime.inputs) == sorted(["attention_mask", *names])
    runtime.close()


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_embeddings_are_what_older_delegates_take(artifacts, family):
    operators = read_operators(artifacts[family, "embeddings"] / "model.tflite")
    for name in ("tflite-android-2.x", "litert-2.3"):
        found = predict(operators, PROFILES[name])
        assert found.whole, found.refused


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_all_profiles_classify_alike(artifacts, family):
    answers = []
    for folder in (exported(family).tflite, artifacts[family, "stock"], artifacts[family, "embeddings"]):
        with TextClassifier(folder) as classifier:
            answers.append([p.labels[0] for p in classifier.classify(TEXTS[:6])])
    for other in answers[1:]:
        assert [name for name, _ in other] == [name for name, _ in answers[0]]
        assert [p for _, p in other] == pytest.approx([p for _, p in answers[0]], abs=1e-5)


def test_tables_are_mapped_not_read(artifacts):
    host = HostLookup.beside(artifacts["bert", "embeddings"] / "model.tflite")
    assert host is not None
    assert isinstance(host._words, np.memmap)
    assert HostLookup.beside(exported("bert").tflite / "model.tflite") is None


def test_foreign_ids_and_broken_tables_are_named(artifacts, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(artifacts["bert", "embeddings"], folder)
    host = HostLookup.beside(folder / "model.tflite")
    assert host is not None
    ids = np.full((1, 4), 10_000, np.int32)
    with pytest.raises(CheckpointError, match="beyond the tables"):
        host.extend({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
    (folder / WORDS_FILE).write_bytes(b"no table")
    with pytest.raises(CheckpointError, match="tables beside"):
        HostLookup.beside(folder / "model.tflite")


def test_stock_is_what_delegates_refuse(artifacts):
    operators = read_operators(artifacts["bert", "stock"] / "model.tflite")
    gathers = [op for op in operators if op.kind == "GATHER"]
    assert gathers and all(len(op.inputs[1].shape) == 2 for op in gathers)
    card = read_artifact(artifacts["bert", "stock"]).card
    assert (card.graph_profile, card.fused) == ("stock", ())


@pytest.mark.parametrize("recipe", ["dynamic_wi8_afp32", "static_wi8_ai8", "fp16"])
def test_embeddings_can_be_quantized(artifacts, tmp_path, recipe):
    from pocketbert.data.dataset import Split
    from pocketbert.numerics.logits import compare_logits
    from pocketbert.params import QuantizeParams
    from pocketbert.quantize.run import quantize_artifact

    source = artifacts["bert", "embeddings"]
    params = QuantizeParams.model_validate({"recipes": {"q": {"format": "tflite", "recipe": recipe}}})
    train = Split(texts=TEXTS, targets=np.arange(len(TEXTS)) % len(read_labels(source).names))
    quantize_artifact(params, "q", {"tflite": source}, train, tmp_path / "q")
    assert all((tmp_path / "q" / name).exists() == (source / name).exists() for name in COMPANIONS)
    batch = TextEncoder(source).encode(TEXTS[:8], 24)
    logits = []
    for folder in (source, tmp_path / "q"):
        runtime = open_runtime(folder)
        logits.append(runtime.run(batch))
        runtime.close()
    assert compare_logits(*logits).max_rel_diff < 1.0
