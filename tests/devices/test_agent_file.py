"""The agent as one file, the environment that it builds, and what is asked of pip for a device."""

import ast
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from pocketbert.devices.agent import governor
from pocketbert.devices.agent.engines import _with_companions
from pocketbert.devices.agent.environment import build_environment
from pocketbert.devices.base import HostFacts
from pocketbert.devices.package import pack_agent
from pocketbert.devices.wheels import _target_options
from pocketbert.errors import DeviceError

AGENT = Path(governor.__file__).parent


def facts(**changes: object) -> HostFacts:
    known = {
        "processor": "x", "architecture": "aarch64", "cores": 4, "memory_total_bytes": None, "os": "Debian",
        "memory_available_bytes": None, "kernel": "6", "governor": None, "load_average_1min": None, "free_bytes": 1,
        "python": "3.11.2", "libc": "glibc 2.36", "gpu_model": None, "gpu_driver": None,
    }  # fmt: skip
    return HostFacts.model_validate(known | changes)


def test_the_agent_is_python_3_9_and_the_standard_library() -> None:
    allowed = {"numpy", "pocketbert"}
    for path in AGENT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            roots = {name.split(".")[0] for name in names}
            assert roots <= set(sys.stdlib_module_names) | allowed, path
            assert "pocketbert" not in roots, path


def test_the_same_source_gives_the_same_file_and_it_runs(tmp_path: Path) -> None:
    first, second = pack_agent(tmp_path), pack_agent(tmp_path)
    assert first == second
    done = subprocess.run([sys.executable, "-I", first, "status", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '{"owner": null}\n')


def wheel(folder: Path) -> Path:
    path = folder / "greeting-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("greeting/__init__.py", "from hello_platform import WORD\n")
        archive.writestr("greeting-1.data/platlib/hello_platform.py", "WORD = 'hello'\n")
        archive.writestr("greeting-1.data/scripts/greet", "#!python\n")
        archive.writestr("../escaped.py", "")
    return path


def test_an_environment_of_wheels_is_isolated_and_built_once(tmp_path: Path) -> None:
    target = tmp_path / "environments" / "a b"
    made = build_environment([wheel(tmp_path)], target)
    assert set(made) == {"interpreter"}
    code = "import greeting, importlib.util; print(greeting.WORD, importlib.util.find_spec('pydantic'))"
    done = subprocess.run([made["interpreter"], "-c", code], capture_output=True, text=True)
    assert done.stdout == "hello None\n", done.stderr
    assert not list(tmp_path.rglob("escaped.py"))
    assert build_environment([], target) == made


def test_without_venv_it_is_a_folder_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "venv", None)
    made = build_environment([wheel(tmp_path)], tmp_path / "environment")
    done = subprocess.run(
        [made["interpreter"], "-c", "import greeting; print(greeting.WORD)"], capture_output=True, text=True,
        env={"PYTHONPATH": made["PYTHONPATH"]},
    )  # fmt: skip
    assert done.stdout == "hello\n", done.stderr


def test_pip_is_asked_for_the_device_s_processor_python_and_c_library() -> None:
    options = _target_options(facts())
    assert "--platform=manylinux2014_aarch64" in options
    assert "--platform=manylinux_2_36_aarch64" in options
    assert "--platform=manylinux_2_37_aarch64" not in options
    assert "--python-version=3.11" in options
    assert "--abi=cp311" in options


@pytest.mark.parametrize("libc", [None, "musl 1.2"])
def test_no_wheels_for_other_c_libraries(libc: str | None) -> None:
    with pytest.raises(DeviceError, match="there are no wheels for a system with"):
        _target_options(facts(libc=libc))


def test_the_governor_is_put_back_when_the_agent_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    place.parent.mkdir(parents=True)
    place.write_text("schedutil", encoding="utf-8")
    code = (
        "import os, sys, signal; from pathlib import Path; from pocketbert.devices.agent.governor import *\n"
        "work = Path(sys.argv[1]); guard(work); set_governor('performance', work, work)\n"
        "print(Path(sys.argv[2]).read_text(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path, place], stdout=subprocess.PIPE, text=True)
    assert done.stdout == "performance\n"
    for _ in range(100):
        if place.read_text(encoding="utf-8") == "schedutil":
            break
        time.sleep(0.05)
    assert place.read_text(encoding="utf-8") == "schedutil"


def test_companions_are_copied_where_links_are_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Android forbids them to apps."""

    def forbidden(*_: object) -> None:
        raise PermissionError("links are forbidden")

    monkeypatch.setattr(os, "link", forbidden)
    for name in ("model", "weights"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    files = {"in a folder/weights": str(tmp_path / "weights")}
    request = {"model": str(tmp_path / "model"), "files": files, "answer": str(tmp_path / "session/answer.json")}
    for _ in range(2):
        model = Path(_with_companions(request))
        assert model.read_text(encoding="utf-8") == "model"
        assert (model.parent / "in a folder/weights").read_text(encoding="utf-8") == "weights"
