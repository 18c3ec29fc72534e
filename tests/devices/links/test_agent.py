"""The agent at the end of a real link: a disk that fills up, and what a probe says."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from pocketbert.devices.agent.lock import read_owner
from pocketbert.devices.follow import Patience
from pocketbert.devices.probe import probe_device
from pocketbert.devices.session import DeviceSession
from pocketbert.errors import DeviceError
from tests.devices.agents import make_plan, simulated
from tests.devices.links.sshd import Sshd


def test_a_disk_that_fills_up_ends_the_agent_with_a_reason(small_sshd: Sshd) -> None:
    link = small_sshd.link()
    work = str(small_sshd.small / "work")
    with DeviceSession("board", link, work, sys.executable, Patience(0.3, 3.0, 20.0)) as session:
        plan = make_plan(session, [simulated("a", sleep_s=30.0)])

        def fill() -> None:
            time.sleep(1.5)
            other = small_sshd.link()
            other.connect()
            other.run(["dd", "if=/dev/zero", f"of={small_sshd.small}/filler", "bs=64k"], timeout_s=30)
            other.close()

        thread = threading.Thread(target=fill)
        thread.start()
        with pytest.raises(DeviceError, match=r"the agent on board died: .*(0 MB free|No space left)"):
            list(session.run(plan, 0))
        thread.join()
        link.run(["rm", "-f", f"{small_sshd.small}/filler"], timeout_s=30)
        assert session.ask("status", work)["owner"] is None


def test_a_changed_host_key_is_named_by_the_probe(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entry = sshd.params(host_key="SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU").model_dump(mode="json")
    kept = {key: entry[key] for key in ("kind", "address", "port", "user", "key", "host_key", "work")}
    Path("devices.yaml").write_text(json.dumps({"devices": {"board": kept}}), encoding="utf-8")
    found = probe_device("board")
    assert not found.reachable
    assert "host key" in str(found.error)


def test_a_probe_over_ssh(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entry = sshd.params(python=sys.executable).model_dump(mode="json")
    kept = {key: entry[key] for key in ("kind", "address", "port", "user", "key", "host_key", "work", "python")}
    Path("devices.yaml").write_text(json.dumps({"devices": {"board": kept}}), encoding="utf-8")
    found = probe_device("board")
    assert (found.reachable, found.error) == (True, None)
    assert abs(found.clock_skew_s or 99) < 5
    assert found.runtimes["litert"]
    assert read_owner(sshd.device) is None
