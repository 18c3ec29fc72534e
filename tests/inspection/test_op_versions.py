import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.errors import ParamsError
from pocketbert.inspection.graph import OpUse
from pocketbert.inspection.op_versions import MINIMUM_RUNTIME, lowest_runtime, op_need, parse_version


def test_the_table_names_operators_of_the_schema_only() -> None:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    assert {op for op, _ in MINIMUM_RUNTIME} <= set(vars(BuiltinOperator))


def test_a_later_version_of_an_operator_never_needs_an_earlier_runtime() -> None:
    for (op, version), runtime in MINIMUM_RUNTIME.items():
        before = MINIMUM_RUNTIME.get((op, version - 1))
        assert before is None or parse_version(before) <= parse_version(runtime), op


@given(st.sampled_from(sorted(MINIMUM_RUNTIME)), st.integers(1, 2), st.integers(0, 30))
def test_too_old_is_the_order_of_versions_not_of_strings(key: tuple[str, int], major: int, minor: int) -> None:
    need = op_need(OpUse(*key, 1), parse_version(f"{major}.{minor}"))
    parts = [int(part) for part in MINIMUM_RUNTIME[key].split(".")]
    assert need.too_old == ([major, minor, 0] < parts + [0] * (3 - len(parts)))


def test_a_version_newer_than_the_table_is_unknown_unless_the_runtime_is_older_than_the_table() -> None:
    use = OpUse("GELU", 99, 1)
    assert op_need(use, parse_version("2.20")).too_old is None
    assert op_need(use, parse_version("2.8")).too_old is True
    assert "newer than the table" in op_need(use, None).note


def test_an_operator_out_of_the_table_is_unknown_and_a_custom_one_is_refused() -> None:
    unknown = op_need(OpUse("LSTM", 1, 1), parse_version("2.13"))
    assert (unknown.runtime, unknown.too_old) == (None, None)
    assert op_need(OpUse("MyOp", 1, 1, custom=True), parse_version("2.13")).too_old is True
    assert lowest_runtime([unknown]) is None


@pytest.mark.parametrize("text", ["", "2", "two", "2.x", "2.1.2.3", "-1.2"])
def test_a_bad_version_is_named(text: str) -> None:
    with pytest.raises(ParamsError, match="is not the version of a runtime"):
        parse_version(text)
