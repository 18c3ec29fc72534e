"""Two moments of benchmarks/faults.py, which kills each process at many random ones, under a minutely schedule."""

import pytest

from benchmarks.faults import main

pytestmark = pytest.mark.e2e


def test_a_killed_dvc_and_a_killed_server_leave_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = main(["--victims", "dvc", "prefect", "--after", "1", "6", "--minutely"])
    assert not wrong, capsys.readouterr().out
