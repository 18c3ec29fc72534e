import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pocketbert.errors import ParamsError
from pocketbert.params import (
    BenchmarkParams,
    Budget,
    CheckpointStudent,
    ConfigStudent,
    CutStudent,
    DistillParams,
    HeadParams,
    HiddenLoss,
    Params,
    PrepareParams,
    ReportParams,
    load_params,
    parse_params,
)

WORD = st.from_regex(r"[A-Za-z0-9_./ é:#-]{1,12}", fullmatch=True)
NAME = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,10}", fullmatch=True)
UNIT = st.floats(0.0, 1.0)
RATE = st.floats(1e-12, 1.0)
COUNT = st.integers(1, 10**6)
HEADS = st.builds(HeadParams, depth=st.integers(1, 8), width=st.none() | COUNT, dropout=st.floats(0.0, 0.99))
PAIRS = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), min_size=1, max_size=3)
STUDENTS = st.one_of(
    st.builds(CutStudent, layers=COUNT | st.sets(st.integers(0, 24), min_size=1, max_size=4).map(sorted)),
    st.builds(CheckpointStudent, kind=st.just("checkpoint"), checkpoint=WORD, revision=st.none() | WORD),
    st.builds(
        ConfigStudent,
        kind=st.just("config"),
        family=st.sampled_from(["bert", "distilbert", "mobilebert"]),
        config=st.dictionaries(NAME, st.integers(0, 10**6) | st.booleans() | WORD, max_size=3),
    ),
)
PARAMS = st.builds(
    Params,
    prepare=st.builds(PrepareParams, text_column=st.none() | WORD, valid_fraction=st.floats(0.01, 0.49)),
    distill=st.builds(
        DistillParams,
        student=STUDENTS,
        head=HEADS,
        temperature=st.floats(1e-3, 100.0),
        alpha=UNIT,
        learning_rate=RATE,
        hidden=st.builds(HiddenLoss, weight=st.floats(0.0, 10.0), layer_map=PAIRS),
        seed=st.integers(0, 2**32 - 1),
    ),
    benchmark=st.builds(BenchmarkParams, runs=st.integers(10, 10**6), threads=COUNT),
    report=st.builds(
        ReportParams, budgets=st.lists(st.builds(Budget, artifact=NAME, size_bytes_max=COUNT), max_size=2)
    ),
)


def parse(text: str) -> Params:
    return parse_params(YAML(typ="safe").load(text), Path("params.yaml"))


def message(text: str) -> str:
    with pytest.raises(ParamsError) as raised:
        parse(text)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@given(PARAMS)
def test_params_survive_yaml(params: Params) -> None:
    stream = io.StringIO()
    YAML(typ="safe").dump(params.model_dump(mode="json", by_alias=True), stream)
    assert parse(stream.getvalue()) == params


def test_the_shipped_file_is_valid_and_says_what_the_model_says() -> None:
    shipped = load_params(Path(__file__).parent.parent / "params.yaml")
    assert set(shipped.model_dump(by_alias=True)) == {
        field.alias or name for name, field in Params.model_fields.items()
    }


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("distill: {temprature: 4}", "distill.temprature", "temperature"),
        ("distil: {}", "distil", "distill"),
        ("distill: {head: {widht: 3}}", "distill.head.widht", "width"),
        ("distill: {student: {kind: cut, layer: 3}}", "'distill.student.layer'", "layers"),
        ("quantize: {recipes: {a: {format: onnx, recipe: fp16, option: {}}}}", "option", "options"),
        ("report: {budgets: [{artefact: a}]}", "artefact", "artifact"),
        ("validate: {row: 3}", "validate.row", "rows"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_right_one(text: str, wrong: str, right: str) -> None:
    said = message(text)
    assert wrong in said
    assert f"did you mean {right!r}?" in said


def test_a_key_like_no_other_is_answered_with_all() -> None:
    assert "known keys: batch_size, unlabelled" in message("soften: {zzzzzz: 1}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distill: {temperature: warm}", "distill.temperature = 'warm'"),
        ("distill: {temperature: 0}", "greater than 0"),
        ("distill: {alpha: 1.5}", "distill.alpha = 1.5"),
        ("distill: {epochs: .nan}", "distill.epochs"),
        ("teach: {pooling: max}", "'mean' or 'cls'"),
        ("teach: {batch_size: 2.5}", "teach.batch_size"),
        ("benchmark: {runs: 3}", "greater than or equal to 10"),
        ("distill: {student: {kind: tiny}}", "tiny"),
        ("distill: {hidden: {weight: 1.0}}", "layer_map"),
        ("quantize: {recipes: {../up: {format: onnx, recipe: fp16}}}", "../up"),
        ("[1, 2]", "the file = [1, 2]: should be a section of keys"),
        ("teach:", "teach is empty"),
        ("teach: {epochs: true}", "teach.epochs = True: Input should be a valid number"),
        ("teach: {epochs: .inf}", "teach.epochs = inf"),
        ("export_onnx: {mask_value: -.inf}", "export_onnx.mask_value = -inf"),
        ("prepare: {label_separator: ''}", "prepare.label_separator = ''"),
        ("prepare: {hub: x/y}", "prepare.hub = 'x/y': should be a section of keys"),
        ("distill: {student: {kind: checkpoint}}", "distill.student.checkpoint is missing"),
        ("distill: {student: {layers: 3}}", "distill.student needs the key 'kind'"),
        ("distill: {student: {kind: cut, layers: 0}}", "distill.student.layers = 0: give"),
        ("distill: {student: {kind: cut, layers: true}}", "distill.student.layers = True"),
        ("distill: {student: {kind: cut, layers: []}}", "distill.student.layers = []: give"),
        ("distill: {student: {kind: cut, layers: [2, 2]}}", "ascending"),
        ("distill: {student: {kind: cut, layers: [0, -1]}}", "distill.student.layers = [0, -1]: give"),
        ("report: {budgets: [{artifact: a}]}", "report.budgets.0 = {'artifact': 'a'}: needs a limit"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(text: str, said: str) -> None:
    assert said in message(text)


def test_the_keys_of_one_kind_of_student_are_told_for_that_kind() -> None:
    assert message("distill: {student: {kind: cut, zzzzzz: 3}}").count("known keys: kind, layers.") == 1


def test_a_value_that_fits_no_member_of_a_union_is_named_once() -> None:
    assert message("quantize: {recipes: {a: {format: onnx, recipe: fp16, options: {b: {}}}}}").count(".b = {}") == 1


def test_several_mistakes_are_told_at_once() -> None:
    said = message("distill: {temprature: 4, alpha: 7}")
    assert "temprature" in said and "distill.alpha" in said


def test_a_password_does_not_belong_into_params_and_is_not_repeated() -> None:
    said = message("publish: {tracking_uri: 'postgresql://me:hunter2@db/mlflow'}")
    assert "MLFLOW_TRACKING_URI" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("text", ["distill: {", "a: b: c", "distill: {}\ndistill: {}", "\t- x", "a: &x [*y]"])
def test_broken_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match="not valid YAML") as raised:
        load_params(path)
    assert "\n" not in str(raised.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="does not exist"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ParamsError):
        load_params(tmp_path / "params.yaml")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("")
    assert load_params(tmp_path / "params.yaml") == Params()


def test_sections_are_named_as_stages() -> None:
    params = Params()
    for field, info in Params.model_fields.items():
        section: Any = params.section(info.alias or field)
        assert section is getattr(params, field)


def test_quantization_aware_training_is_refused_with_fusions():
    with pytest.raises(
        ParamsError, match=r"^params.yaml is not valid: qat.enabled = true needs export_tflite.fuse = \[\]"
    ):
        parse_params({"qat": {"enabled": True}}, Path("params.yaml"))
    assert parse_params({"qat": {"enabled": True}, "export_tflite": {"fuse": []}}, Path("params.yaml")).qat.enabled
    assert parse_params({"qat": {"enabled": True}, "export_tflite": {"profile": "stock"}}, Path("params.yaml"))
