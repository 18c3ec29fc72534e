"""A device without Python: the host takes the agent's part over plain commands."""

import time
from pathlib import Path

import pytest

from pocketbert.devices.agent.telemetry import Sampler
from pocketbert.devices.base import Owner
from pocketbert.devices.follow import Patience
from pocketbert.devices.inventory import read_inventory
from pocketbert.devices.links.base import Finished, Link, LinkLost
from pocketbert.devices.links.fake import FakeLink, Fault
from pocketbert.devices.links.local import LocalLink
from pocketbert.devices.shell import ShellSession
from pocketbert.devices.snapshot import take_snapshot
from pocketbert.errors import DeviceError, ParamsError
from tests.devices.agents import ELSEWHERE, GONE, make_plan, simulated

TRANSCRIPTS = Path(__file__).parent / "transcripts"
CUT = LinkLost("the connection broke", "Look at the cable.")


def open_session(work: Path, link: Link | None = None) -> ShellSession:
    return ShellSession("phone", link or LocalLink(), str(work), Patience(0.05, 5.0, 20.0))


def test_rounds_over_a_link_that_breaks(tmp_path: Path) -> None:
    faults = [Fault("read", at, CUT) for at in range(2, 80, 3)] + [Fault("start", 2, CUT), Fault("connect", 1, CUT)]
    # Sensors are read by commands, once in a while beside each measurement.
    faults += [Fault("run", at, CUT) for at in range(2, 80, 4)]
    work = tmp_path / "a 'phone'"
    with open_session(work, FakeLink(LocalLink(), faults=faults)) as session:
        events = list(session.run(make_plan(session, [simulated("a"), simulated("bad", "fail")]), 0))
    measured = [e for e in events if e["event"] == "measured"]
    assert [(e["artifact"], e["round"]) for e in measured] == [("a", 0), ("a", 1)]
    assert measured[0]["answer"]["runtime"] == "simulator 1"
    failed = [e for e in events if e["event"] == "failed"]
    assert len(failed) == 1
    assert "out of paper" in failed[0]["cause"]
    assert events[0]["facts"]["cores"] >= 1
    assert list(work.iterdir()) == []


def test_a_program_whose_time_is_up_is_ended_with_its_children(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        plan = make_plan(session, [simulated("slow", sleep_s=600.125)], timeout_s=1)
        events = list(session.run(plan, 0))
    failed = next(e["cause"] for e in events if e["event"] == "failed")
    assert failed.endswith("did not end within 1 s and was killed")
    time.sleep(0.2)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if b"600.125" in command]


@pytest.mark.parametrize(("owner", "free"), [(GONE, True), (ELSEWHERE, False)])
def test_the_lock_of_a_dead_owner_of_this_machine_is_broken(tmp_path: Path, owner: Owner, free: bool) -> None:
    (tmp_path / "owner").symlink_to(owner.model_dump_json())
    with open_session(tmp_path) as session:
        events = session.run(make_plan(session, [simulated("a")]), 0)
        if free:
            assert [e["event"] for e in events].count("measured") == 2
        else:
            with pytest.raises(DeviceError, match="phone is in use by process 1 of another-machine"):
                list(events)
            assert session.owner() == owner.model_dump()


def test_a_phone_s_answers(tmp_path: Path) -> None:
    getprop = (TRANSCRIPTS / "pixel.getprop").read_text(encoding="utf-8")
    thermal = (TRANSCRIPTS / "pixel.thermalservice").read_text(encoding="utf-8")
    mark = "\n@@pocketbert@@"
    said = f"{mark}/proc/meminfo\nMemTotal: 8 kB\n{mark}getprop\n{getprop}{mark}thermalservice\n{thermal}"
    link = FakeLink(answers={("sh", "-c"): Finished(0, said.encode(), b"")})
    properties = take_snapshot(link, tmp_path)
    assert properties["ro.soc.model"] == "Tensor G3"
    # The cached value comes first; the processor's is chosen.
    assert Sampler(tmp_path).sample()["temperature_c"] == 47.5
    assert (tmp_path / "etc/os-release").read_text(encoding="utf-8") == 'PRETTY_NAME="Android 14 (Pixel 8)"\n'
    assert (tmp_path / "proc/meminfo").read_text(encoding="utf-8").startswith("MemTotal: 8 kB")


def test_a_snapshot_of_this_machine(tmp_path: Path) -> None:
    with open_session(tmp_path / "work") as session:
        found = session.probe()
    assert found["memory_total_bytes"] > 1e8
    assert found["free_bytes"] > 1e6
    assert found["kernel"]
    assert found["imports"] == {}


def test_no_python_and_no_program_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text("devices: {phone: {kind: adb, serial: x, python: null}}", encoding="utf-8")
    with pytest.raises(ParamsError, match="needs python, or a runner that measures without it"):
        read_inventory(file)
