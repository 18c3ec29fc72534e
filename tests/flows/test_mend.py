"""A dvc that is killed while it writes leaves files that make every later dvc fail."""

import subprocess
from pathlib import Path

import pytest

from flows.mend import main, mend, remember
from flows.slots import workspace_slot
from tests.conftest import ROOT
from tests.flows.conftest import environment


def repro() -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["dvc", "repro", "prepare"], env=environment(), capture_output=True, text=True)


def test_a_torn_rwlock_would_stop_every_dvc(miniature: Path) -> None:
    path = miniature / ".dvc/tmp/rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    assert "corrupted" in repro().stderr
    assert mend() == [".dvc/tmp/rwlock was torn by a killed dvc: removed"]
    assert repro().returncode == 0
    assert mend() == []


def test_dvc_lock_is_as_it_was_before_the_kill(miniature: Path) -> None:
    assert mend() == []
    assert repro().returncode == 0
    remember()
    lock = miniature / "dvc.lock"
    whole = lock.read_bytes()
    for torn in (b"", whole[:30], b"stages:\n  prepare: {", b"\xff"):
        lock.write_bytes(torn)
        assert len(mend()) == 1
        assert lock.read_bytes() == whole
    assert mend() == []


@pytest.mark.parametrize("before", [None, ""])
def test_without_a_copy_the_cache_has_to_do(miniature: Path, before: str | None) -> None:
    assert repro().returncode == 0
    (miniature / "dvc.lock").write_text("")
    if before is not None:
        (miniature / ".pocketbert").mkdir()
        (miniature / ".pocketbert/dvc.lock").write_text(before)
    assert len(mend()) == 1
    assert "cached" in repro().stdout


def test_make_repro_mends_first(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repro().returncode == 0
    rwlock, lock = miniature / ".dvc/tmp/rwlock", miniature / "dvc.lock"
    assert main() == 0
    assert capsys.readouterr().out == ""
    # A flow at work has mended when it started, and its dvc may be writing.
    with workspace_slot():
        for path in (rwlock, lock):
            path.write_text("")
        assert main() == 0
        assert rwlock.read_text() == lock.read_text() == ""
    assert main() == 0
    assert capsys.readouterr().out.count("was torn by a killed dvc") == 2
    assert "didn't change" in repro().stdout
    plan = subprocess.run(["make", "--dry-run", "repro"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert plan.index("python -m flows.mend") < plan.index("dvc repro")
