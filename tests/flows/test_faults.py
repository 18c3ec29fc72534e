"""Two random moments of benchmarks/faults.py, which kills each process at many."""

import random

import pytest

from benchmarks.faults import main

pytestmark = pytest.mark.e2e


def test_a_killed_dvc_and_a_killed_server_leave_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    # The moments differ from run to run, and are told where one is wrong.
    seed = random.SystemRandom().randrange(1_000_000)
    wrong = main(["--moments", "1", "--seed", str(seed), "--victims", "dvc", "prefect"])
    assert not wrong, f"seed {seed}\n{capsys.readouterr().out}"
