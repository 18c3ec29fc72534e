import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.params import Params, PublishParams
from pocketbert.redaction import hide_secrets, hide_secrets_in
from pocketbert.tracking.flatten import flatten_params, safe_key, split_summary

SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=20)
METRICS = st.recursive(SCALARS, lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=10)


@settings(deadline=None)  # The first example imports mlflow.
@given(st.text())
def test_any_key_becomes_one_that_mlflow_takes(key: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(safe_key(key))


@given(st.from_regex(r"[a-z]+(\.[a-z_0-9-]+){0,3}(/[a-z]+)?", fullmatch=True))
def test_ordinary_keys_stay_as_they_are(key: str) -> None:
    assert safe_key(key) == key


@given(st.dictionaries(st.text(max_size=8), METRICS, max_size=5))
def test_a_summary_is_numbers_and_texts(metrics: dict[str, object]) -> None:
    numbers, texts = split_summary(metrics)
    assert all(isinstance(value, float) and not math.isnan(value) for value in numbers.values())
    assert all(isinstance(value, str) for value in texts.values())


def test_a_summary_leaves_out_what_is_unknown() -> None:
    numbers, texts = split_summary({"a": {"b": 1, "c": None, "d": "word"}, "ok": True})
    assert (numbers, texts) == ({"a.b": 1.0, "ok": 1.0}, {"a.d": "word"})


def test_params_are_flat_strings() -> None:
    flat = flatten_params(Params().model_dump(mode="json", by_alias=True))
    assert flat["distill.temperature"] == "2.0"
    assert flat["distill.student.layers"] == "3"
    assert flat["prepare.hub"] == "null"
    assert flat["publish.register_artifacts"] == '["tflite-*"]'
    assert flat["validate.rows"] == "128"


def test_a_long_parameter_is_cut_to_what_the_store_takes() -> None:
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    assert len(flatten_params({"list": "x" * 10_000})["list"]) == MAX_PARAM_VAL_LENGTH


WORD = st.text(st.characters(whitelist_categories=("L", "N")), min_size=1, max_size=12)


@given(user=WORD, password=WORD, host=st.from_regex(r"[a-z]{1,10}(:[0-9]{1,4})?", fullmatch=True))
def test_no_password_survives(user: str, password: str, host: str) -> None:
    for uri in (
        f"http://{user}:{password}@{host}/a",
        f"postgresql+psycopg2://{user}:{password}@{host}/mlflow",
        f"postgresql://{host}/mlflow?user={user}&password={password}",
        f"mysql://{user}:p@{password}@{host}/mlflow",
    ):
        shown = hide_secrets(f"cannot reach {uri} now")
        assert shown.startswith("cannot reach ") and shown.endswith(" now")
        assert not re.search(rf"[:@=]{re.escape(password)}(@| |$)", shown)
    assert hide_secrets_in({"a": [f"http://{user}:{password}@{host}", 1]}) == {"a": [f"http://***@{host}", 1]}


def test_a_uri_without_a_password_is_left_alone() -> None:
    for uri in ("sqlite:///mlflow.db", "http://127.0.0.1:5000", "postgresql://user@host:5432/db?sslmode=require"):
        assert hide_secrets(uri) == uri
        assert PublishParams(tracking_uri=uri).tracking_uri == uri
