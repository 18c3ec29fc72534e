from pathlib import Path

import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.artifacts import Artifact
from pocketbert.errors import CheckpointError, ExportError
from pocketbert.inspection.tflite_file import read_tflite
from pocketbert.partition.lifetime import Schedule, arena_bytes
from pocketbert.partition.model import read_graph
from pocketbert.partition.needs import ENGINE_BYTES, need_of, plan_memory

pytestmark = pytest.mark.xdist_group("partition")

LIVES = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 9), st.integers(0, 9)).map(lambda t: (t[0], min(t[1:]), max(t[1:]))),
    max_size=12,
)


@given(LIVES)
def test_an_arena_holds_what_lives_together_and_no_more_than_everything(lives: list[tuple[int, int, int]]) -> None:
    together = max((sum(s for s, first, last in lives if first <= k <= last) for k in range(10)), default=0)
    assert together <= arena_bytes(lives, alignment=1) <= sum(size for size, *_ in lives)


def test_an_arena_reuses_a_gap_between_two_tensors_that_live() -> None:
    # 8 and 4 live all along with a gap of 6 between them from step 1 on.
    assert arena_bytes([(8, 0, 2), (6, 0, 0), (4, 0, 2), (5, 1, 2)], alignment=1) == 18


@pytest.mark.parametrize("name", ["bert", "mobilebert", "tflite-static_wi8_ai8"])
def test_the_plan_is_what_litert_s_own_arena_takes(files: dict[str, Artifact], name: str) -> None:
    """Without XNNPACK the addresses of the tensors can be read: they lie in one arena."""
    path = files[name].model_path
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    schedule = Schedule(read_graph(path))
    spans = []
    for tensor in schedule.lives:
        start = interpreter.tensor(tensor)().__array_interface__["data"][0]
        spans.append((start, start + schedule.size(tensor)))
    taken = max(end for _, end in spans) - min(start for start, _ in spans)
    # Kernels keep temporaries of their own in it (a transposed operand), which no file shows.
    assert plan_memory(schedule).arena_bytes <= 1.01 * taken
    assert taken <= 1.6 * plan_memory(schedule).arena_bytes


def test_live_bytes_count_what_a_step_reads_and_writes(bert_path: Path) -> None:
    schedule = Schedule(read_graph(bert_path))
    for live, step in zip(schedule.live_bytes, schedule.steps, strict=True):
        assert live >= schedule.total({*step.reads, *step.writes})


def test_constants_are_found_inside_the_flatbuffer_and_behind_it(files: dict[str, Artifact]) -> None:
    for artifact in files.values():
        graph = read_graph(artifact.model_path)
        content = artifact.model_path.read_bytes()
        stored = sum(t.stored.size_bytes for t in graph.tensors if t.stored)
        # read_tflite counts the scales of a quantized tensor with it.
        if artifact.card.recipe == "none":
            assert stored == sum(c.size_bytes for c in read_tflite(artifact.model_path).graph.constants.values())
        interpreter = Interpreter(model_path=str(artifact.model_path))
        checked = 0
        for tensor in graph.tensors:
            if tensor.stored and tensor.dtype in ("FLOAT32", "INT8", "INT32") and tensor.stored.size_bytes > 64:
                stored_bytes = content[tensor.stored.offset : tensor.stored.offset + tensor.stored.size_bytes]
                assert interpreter.get_tensor(tensor.index).tobytes() == stored_bytes
                checked += 1
        assert checked


def test_packed_weights_count_twice_and_a_table_by_its_rows(bert_path: Path) -> None:
    schedule = Schedule(read_graph(bert_path))
    weights = schedule.graph.tensors
    for step in schedule.steps:
        if step.operator.kind == "FULLY_CONNECTED":
            kernel = step.operator.inputs[1]
            assert step.resident[kernel] == 2 * weights[kernel].size_bytes + 16 * weights[kernel].shape[0]
    plan = plan_memory(schedule)
    assert plan.need.total_bytes == need_of(schedule, 0, len(schedule.steps)).total_bytes
    assert plan.need.engine_bytes == ENGINE_BYTES


def test_a_damaged_file_and_a_dynamic_shape_are_told(tmp_path: Path, bert_path: Path) -> None:
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(bert_path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        read_graph(cut)
    (tmp_path / "text.tflite").write_text("no model at all")
    with pytest.raises(CheckpointError, match="does not start as a TFLite file"):
        read_graph(tmp_path / "text.tflite")
    (tmp_path / "empty.tflite").touch()
    with pytest.raises(CheckpointError, match="is empty"):
        read_graph(tmp_path / "empty.tflite")
    import tensorflow as tf

    function = tf.function(lambda x: x * 2.0).get_concrete_function(tf.TensorSpec([None, 3]))
    dynamic = tmp_path / "dynamic.tflite"
    dynamic.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())
    with pytest.raises(ExportError, match="dynamic shape"):
        read_graph(dynamic)
