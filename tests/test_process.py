"""A stage dies with the DVC that started it, however that dies."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketbert.process import Ended

ROOT = Path(__file__).parent.parent
STAGE = """
import os, time
from pathlib import Path
from pocketbert.process import die_with_parent
die_with_parent()
Path("pid").write_text(str(os.getpid()))
time.sleep(120)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie, which nobody reaps in a container, does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: object, seconds: float) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "POCKETBERT_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}


def kill_owner(owner: subprocess.Popen[bytes], folder: Path) -> int:
    """Kill -9 the process that owns the stage, and return the stage's pid."""
    pid = folder / "pid"
    assert until(lambda: pid.is_file() and pid.read_text(), 60), "the stage did not start"
    stage = int(pid.read_text())
    assert alive(stage)
    owner.kill()
    owner.wait()
    return stage


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize("command", ["python -m sleepy", "true; python -m sleepy; true"], ids=["replaced", "between"])
def test_a_stage_dies_with_a_killed_dvc(tmp_path: Path, shell: str, command: str) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "sleepy.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(f"stages: {{s: {{cmd: '{command}', deps: [sleepy.py], outs: [out]}}}}\n")
    env = environment(SHELL=path)
    for setup in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(setup, cwd=tmp_path, env=env, check=True)
    dvc = subprocess.Popen(["dvc", "repro"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    stage = kill_owner(dvc, tmp_path)
    assert until(lambda: not alive(stage), 10), "the stage outlived dvc"


@pytest.mark.parametrize(
    ("variables", "dies"), [({"DVC_STAGE": "s"}, True), ({"POCKETBERT_WORKER": "1"}, True), ({}, False)]
)
def test_only_what_dvc_or_pocketbert_started_dies(tmp_path: Path, variables: dict[str, str], dies: bool) -> None:
    (tmp_path / "sleepy.py").write_text(STAGE)
    starter = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'sleepy'])"
    owner = subprocess.Popen([sys.executable, "-c", starter], cwd=tmp_path, env=environment(**variables))
    stage = kill_owner(owner, tmp_path)
    try:
        assert until(lambda: not alive(stage), 10 if dies else 1.5) is dies
    finally:
        if alive(stage):
            os.kill(stage, signal.SIGKILL)


def test_dvc_may_be_process_1_of_a_container(tmp_path: Path) -> None:
    """There, a parent with the number 1 does not mean that the stage was orphaned."""
    if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine does not let us make a process namespace")
    stage = "from pocketbert.process import die_with_parent; die_with_parent(); import os; print('ppid', os.getppid())"
    first = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {stage!r}]).returncode)"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", first]
    done = subprocess.run(command, env=environment(DVC_STAGE="s"), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ppid 1\n"), done.stderr


def test_a_worker_s_end_is_said_in_one_line() -> None:
    crashed = Ended(-signal.SIGABRT, "INFO: loaded\nF0000 00:00:17.5 123 builder.cc:3] no such op\n    @ 0x7f frame\n")
    assert str(crashed) == "the process was killed by SIGABRT: no such op"
    assert str(Ended(-signal.SIGSEGV, "INFO: loaded\n")) == "the process was killed by SIGSEGV"
    assert str(Ended(3, "Traceback\nValueError: bad\n")) == "the process failed with exit code 3: ValueError: bad"
    assert Ended(None, "").timed_out and "time was up" in str(Ended(None, ""))


def test_a_worker_that_leaves_a_grandchild_with_its_output_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe would stay open until the grandchild ends."""
    (tmp_path / "leaves_one.py").write_text(
        "import subprocess, sys\nprint('said', flush=True)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import sys, time\nfrom pathlib import Path\nfrom pocketbert.process import run_worker\n"
         "started = time.monotonic()\nended = run_worker('leaves_one', Path('.'), timeout_s=60)\n"
         "print(ended.returncode, ended.said.strip(), time.monotonic() - started < 15)"],
        cwd=tmp_path, env=environment(PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}"), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "said", "True"], done.stderr
