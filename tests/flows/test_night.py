"""What a night makes of a device that was down: its stage ends well, and its rows say so."""

import json
from pathlib import Path

import pytest

from flows.benchmark_devices import measured
from flows.outcome import is_transient
from flows.rebuild import ask_again


@pytest.mark.parametrize("error", [None, "the board does not answer."])
def test_a_device_that_was_down_fails_its_task_and_is_asked_again(
    error: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results/benchmark/board").mkdir(parents=True)
    Path("results/benchmark/board/benchmark.json").write_text(json.dumps({"device": {"error": error}}))
    state = measured("board", 0, ["Running stage 'benchmark@board':"])
    assert state.is_completed() is (error is None)
    assert is_transient(state) is (error is not None)
    if error is not None:
        assert state.message == f"benchmark@board: {error}"
    assert not measured("board", 1, ["ERROR: failed"]).is_completed()


def test_a_rebuild_of_some_stages_keeps_what_it_does_not_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("devices.yaml").write_text("devices: {board: {kind: local}, phone: {kind: local}}")
    for name in ("board", "phone"):
        Path(f"results/benchmark/{name}").mkdir(parents=True)
        document = {"device": {"error": "it does not answer"}}
        Path(f"results/benchmark/{name}/benchmark.json").write_text(json.dumps(document))
    assert ask_again(["prepare", "quantize@tflite-fp16"]) == []
    assert ask_again(["prepare", "benchmark@phone"]) == [("phone", "it does not answer")]
    assert [path.name for path in Path("results/benchmark").iterdir()] == ["board"]
