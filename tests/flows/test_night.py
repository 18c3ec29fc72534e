"""What a night makes of a device that was down: its stage ends well, and its rows say so."""

import json
from pathlib import Path

import pytest

from flows.benchmark_devices import measured
from flows.outcome import is_transient


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
