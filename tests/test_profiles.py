from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketbert.errors import ParamsError
from pocketbert.params import load_params
from pocketbert.profiles import deep_merge, merge_profiles

BASE = """\
# The teacher.
teach:
  epochs: 4 # enough
  learning_rate: 1.0e-4
distill:
  student: {kind: cut, layers: 3}
quantize:
  recipes:
    onnx-fp16: {format: onnx, recipe: fp16}
"""


def write(folder: Path, **files: str) -> list[Path]:
    paths = [folder / f"{name}.yaml" for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def test_values_change_and_comments_stay(tmp_path: Path) -> None:
    params, first, second = write(
        tmp_path,
        params=BASE,
        first="teach: {epochs: 1}\nprepare: {seed: 7}\n",
        second="teach: {epochs: 2}\nquantize: {recipes: {onnx-int8: {format: onnx, recipe: dynamic_int8}}}\n",
    )
    merged = merge_profiles(params, [first, second])
    assert merged == load_params(params)
    assert (merged.teach.epochs, merged.teach.learning_rate, merged.prepare.seed) == (2, 1e-4, 7)
    assert set(merged.quantize.recipes) == {"onnx-fp16", "onnx-int8"}
    text = params.read_text()
    assert "# The teacher." in text
    assert "epochs: 2 # enough" in text
    assert "learning_rate: 1.0e-4" in text
    assert "student: {kind: cut, layers: 3}" in text


def test_merging_twice_changes_nothing(tmp_path: Path) -> None:
    params, profile = write(tmp_path, params=BASE, profile="distill: {temperature: 4.0}\n")
    merge_profiles(params, [profile])
    once = params.read_text()
    merge_profiles(params, [profile])
    assert params.read_text() == once


def test_the_shipped_params_survive_an_empty_merge_byte_for_byte(tmp_path: Path) -> None:
    shipped = Path("params.yaml").read_text(encoding="utf-8")
    params, profile = write(tmp_path, params=shipped, profile="{}\n")
    merge_profiles(params, [profile])
    assert params.read_text(encoding="utf-8") == shipped


def test_another_kind_of_student_replaces_the_whole_mapping(tmp_path: Path) -> None:
    params, profile = write(
        tmp_path, params=BASE, profile="distill: {student: {kind: checkpoint, checkpoint: models/small}}\n"
    )
    assert merge_profiles(params, [profile]).distill.student.model_dump() == {
        "kind": "checkpoint", "checkpoint": "models/small", "revision": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("distill: {temprature: 4}", "unknown key 'distill.temprature', did you mean 'temperature'?"),
        ("teach: {epochs: many}", "teach.epochs = 'many'"),
        ("teach: {epochs: -1}", "teach.epochs = -1"),
        ("- teach", "profile.yaml holds no mapping"),
        ("teach: {epochs: 1", "profile.yaml is not valid YAML"),
    ],
)
def test_a_bad_profile_is_named_and_nothing_is_written(profile: str, message: str, tmp_path: Path) -> None:
    params, path = write(tmp_path, params=BASE, profile=profile)
    with pytest.raises(ParamsError) as caught:
        merge_profiles(params, [path])
    assert message in str(caught.value)
    assert "profile.yaml" in str(caught.value)
    assert params.read_text() == BASE
    assert sorted(found.name for found in tmp_path.iterdir()) == ["params.yaml", "profile.yaml"]


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    (params,) = write(tmp_path, params=BASE)
    with pytest.raises(ParamsError, match=r"nowhere\.yaml does not exist"):
        merge_profiles(params, [tmp_path / "nowhere.yaml"])


KEYS = st.sampled_from("abcd")
TREES = st.recursive(
    st.integers() | st.none() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=4)


def lookup(tree: object, path: tuple[str, ...]) -> object:
    for key in path:
        tree = tree[key]  # type: ignore[index]
    return tree


def leaves(tree: dict[str, object], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    found = []
    for key, value in tree.items():
        inner = isinstance(value, dict) and value
        found += leaves(value, (*prefix, key)) if inner else [((*prefix, key), value)]  # type: ignore[arg-type]
    return found


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(MAPPINGS, MAPPINGS)
def test_every_override_wins_and_every_other_key_stays(base: dict[str, object], overrides: dict[str, object]) -> None:
    import copy

    merged = copy.deepcopy(base)
    deep_merge(merged, overrides)
    for path, value in leaves(overrides):
        if value != {}:
            assert lookup(merged, path) == value
    assert set(merged) == set(base) | set(overrides)
    for key in set(base) - set(overrides):
        assert merged[key] == base[key]
