"""The guardian between a process and what it starts: nothing is left, whoever is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.child import start_child
from tests.conftest import ROOT
from tests.flows.conftest import environment, wait_for

# A program with a child, and a grandchild that has put itself into the background (as `dvc queue start` does).
FAMILY = """
import os, signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, lambda *_: sys.exit(7))
sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
child = subprocess.Popen(sleep)
daemon = subprocess.run([sys.executable, "-c", f"import subprocess; print(subprocess.Popen({sleep!r}, "
                         "start_new_session=True, stdout=-3, stderr=-3).pid)"], capture_output=True, text=True)
sender = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)", "pocketbert.tracking.forward"],
                          start_new_session=True)
Path("pids.part").write_text(f"{os.getpid()} {child.pid} {int(daemon.stdout)} {sender.pid}")
Path("pids.part").rename("pids")
time.sleep(float(sys.argv[1]))
sys.exit(5)
"""
OWNER = """
from flows.child import start_child
process = start_child(["family", "300"], {})
print(process.pid, flush=True)
process.wait()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "family.py").write_text(FAMILY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    return tmp_path


def family(folder: Path) -> tuple[list[psutil.Process], psutil.Process]:
    """(program, child and daemon, the sender of an MLflow record)"""
    wait_for((folder / "pids").exists, 30, "the start")
    *relatives, sender = (psutil.Process(int(pid)) for pid in (folder / "pids").read_text().split())
    return relatives, sender


def all_gone(processes: list[psutil.Process]) -> bool:
    return psutil.wait_procs(processes, timeout=5)[1] == []


def test_all_below_a_killed_owner_die(folder: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], env=environment(PYTHONPATH=os.environ["PYTHONPATH"]), stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    relatives, sender = family(folder)
    assert owner.stdout is not None
    guardian = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    assert all_gone([guardian, *relatives])
    # It has a few words to send yet, and ends by itself.
    assert sender.is_running()
    assert all_gone([sender])


def test_what_a_program_leaves_behind_dies_with_its_end(folder: Path) -> None:
    process = start_child(["family", "1.5"], {})
    relatives, sender = family(folder)
    assert process.wait(timeout=30) == 5
    assert all_gone(relatives)
    assert sender.is_running()


def test_a_program_dies_with_its_killed_guardian(folder: Path) -> None:
    process = start_child(["family", "300"], {})
    relatives, _ = family(folder)
    process.kill()
    assert all_gone(relatives[:1])
    for relative in relatives[1:]:
        relative.kill()


def test_an_interrupt_of_the_group_is_the_program_s_affair(folder: Path) -> None:
    process = start_child(["family", "300"], {})
    relatives, _ = family(folder)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 7
    assert all_gone(relatives)


def test_the_end_by_a_signal_is_told_as_a_shell_does(folder: Path) -> None:
    process = start_child(["family", "300"], {})
    relatives, _ = family(folder)
    relatives[0].kill()
    assert process.wait(timeout=30) == 128 + signal.SIGKILL
    assert all_gone(relatives)
