"""The agent under a session: cut links, dead and frozen agents, left-overs, locks. Real processes throughout."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketbert.devices.agent.files import process_started
from pocketbert.devices.agent.lock import read_owner
from pocketbert.devices.base import Owner
from pocketbert.devices.follow import Patience
from pocketbert.devices.links.base import LinkLost
from pocketbert.devices.links.fake import FakeLink, Fault
from pocketbert.devices.links.local import LocalLink
from pocketbert.errors import DeviceError
from tests.devices.agents import ELSEWHERE, GONE, make_plan, open_session, simulated

CUT = LinkLost("the connection broke", "Look at the cable.")


def wait_for_owner(work: Path) -> dict[str, object]:
    """The agent that holds a work folder, once it does."""
    for _ in range(300):
        owner = read_owner(work)
        if owner and "agent_pid" in owner:
            return owner
        time.sleep(0.05)
    raise AssertionError("no agent came")


def spooled(work: Path) -> list[dict[str, object]]:
    """What the last session's agent said, straight from its file."""
    last = max((work / "sessions").iterdir(), key=lambda folder: folder.name)
    return [json.loads(line) for line in (last / "spool.jsonl").read_text(encoding="utf-8").splitlines()]


def test_rounds_are_shuffled_and_complete(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        events = list(session.run(make_plan(session, [simulated("a"), simulated("b"), simulated("c")]), 0))
    assert events[0]["event"] == "started"
    measured = [(e["round"], e["artifact"]) for e in events if e["event"] == "measured"]
    assert sorted(measured) == [(r, n) for r in (0, 1) for n in "abc"]
    assert all(len(e["answer"]["latencies_ms"]) == 2 for e in events if e["event"] == "measured")
    assert read_owner(tmp_path) is None


def test_a_cut_link_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    faults = [Fault("read", at, CUT) for at in range(2, 60, 3)]
    faults += [Fault("read", at, CUT, after=True) for at in range(3, 60, 6)]
    faults += [Fault("connect", 4, CUT, times=2), Fault("push", 2, CUT, after=True), Fault("start", 1, CUT, after=True)]
    patience = Patience(poll_s=0.02, silence_s=5.0, reconnect_s=20.0)
    with open_session(tmp_path, FakeLink(LocalLink(), faults=faults), patience) as session:
        plan = make_plan(session, [simulated("a"), simulated("b")])
        events = list(session.run(plan, 0))
        assert events == spooled(tmp_path)
    assert len([e for e in events if e["event"] == "measured"]) == 4


def test_a_link_that_stays_down_is_an_error_in_the_end(tmp_path: Path) -> None:
    down = [Fault("read", 2, CUT, times=999), Fault("connect", 2, CUT, times=999), Fault("run", 1, CUT, times=999)]
    with open_session(tmp_path, FakeLink(LocalLink(), faults=down), Patience(0.05, 2.0, 0.3)) as session:
        plan = make_plan(session, [simulated("a")])
        with pytest.raises(DeviceError, match=r"the connection broke \(tried again for 0\.3 s\)"):
            list(session.run(plan, 0))
    with open_session(tmp_path) as session:  # the agent went on alone; the next one finds the place
        assert [e for e in session.run(make_plan(session, [simulated("a")]), 20) if e["event"] == "measured"]


def test_a_device_that_wakes_up_is_waited_for(tmp_path: Path) -> None:
    waking = FakeLink(LocalLink(), faults=[Fault("connect", 1, CUT, times=2)])
    with open_session(tmp_path, waking, Patience(0.05, 2.0, 2.0, connect_s=20.0)) as session:
        assert session.probe()["cores"] >= 1
    down = FakeLink(faults=[Fault("connect", 1, CUT, times=99)])
    with pytest.raises(DeviceError, match=r"the connection broke \(tried again for 0\.5 s\)"):
        open_session(tmp_path, down, Patience(connect_s=0.5)).__enter__()


def test_a_refusal_is_not_asked_for_again(tmp_path: Path) -> None:
    refused = FakeLink(faults=[Fault("connect", 1, DeviceError("the host key has changed", "Pin it."), times=99)])
    with pytest.raises(DeviceError, match=r"the host key has changed\. Pin it\."):
        open_session(tmp_path, refused, Patience(connect_s=20.0)).__enter__()
    assert [name for name, _ in refused.calls] == ["connect"]


@pytest.mark.parametrize(("sign", "words"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "frozen")])
def test_a_dead_agent_is_told_from_a_frozen_one(tmp_path: Path, sign: signal.Signals, words: str) -> None:
    def hit() -> None:
        os.kill(int(str(wait_for_owner(tmp_path)["agent_pid"])), sign)

    with open_session(tmp_path) as session:
        plan = make_plan(session, [simulated("a", sleep_s=60)])
        threading.Thread(target=hit).start()
        with pytest.raises(DeviceError, match=words):
            list(session.run(plan, 0))
    assert read_owner(tmp_path) is None


def test_a_slow_agent_is_waited_for(tmp_path: Path) -> None:
    with open_session(tmp_path, patience=Patience(poll_s=0.05, silence_s=1.0, reconnect_s=2.0)) as session:
        plan = make_plan(session, [simulated("a", sleep_s=2.5)], runs=1, rounds=1, max_rounds=1)
        assert [e["event"] for e in session.run(plan, 0)].count("measured") == 1


def test_a_failing_and_a_hanging_program_cost_their_own_rounds(tmp_path: Path) -> None:
    artifacts = [simulated("good"), simulated("bad", "fail"), simulated("slow", sleep_s=60.375)]
    with open_session(tmp_path) as session:
        events = list(session.run(make_plan(session, artifacts, timeout_s=1.5), 0))
    failed = {e["artifact"]: e["cause"] for e in events if e["event"] == "failed"}
    assert set(failed) == {"bad", "slow"}
    assert "out of paper" in failed["bad"]
    assert "did not answer within 1.5 s" in failed["slow"]
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if b"60.375" in command]
    assert [e["artifact"] for e in events if e["event"] == "measured"] == ["good", "good"]


def start_and_leave(folder: Path, owner: Owner, sleep_s: float) -> None:
    """What a host does that is killed while it measures: its agent goes on."""
    session = open_session(folder)
    session.__enter__()
    session._start(make_plan(session, [simulated("left", sleep_s=sleep_s)], owner=owner))
    wait_for_owner(folder)


def test_left_overs_of_a_killed_host_are_cleaned(tmp_path: Path) -> None:
    start_and_leave(tmp_path, GONE, sleep_s=60)
    left = wait_for_owner(tmp_path)
    with open_session(tmp_path) as session:
        events = list(session.run(make_plan(session, [simulated("a")]), 0))
    assert [e["artifact"] for e in events if e["event"] == "measured"] == ["a", "a"]
    assert process_started(int(str(left["agent_pid"]))) is None
    assert len(list((tmp_path / "sessions").iterdir())) == 1


def test_one_benchmark_at_a_time(tmp_path: Path) -> None:
    start_and_leave(tmp_path, ELSEWHERE, sleep_s=0.4)
    with open_session(tmp_path) as session:
        plan = make_plan(session, [simulated("a")])
        with pytest.raises(DeviceError, match="board is in use: process 1 of another-machine"):
            list(session.run(plan, 0))
        assert [e["artifact"] for e in session.run(plan, 60) if e["event"] == "measured"] == ["a", "a"]


def test_a_pushed_file_that_no_plan_asks_for_is_deleted_after_a_week(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        old, own = tmp_path / "store" / "old.tflite", Path(session.agent)
        old.touch()
        for file in (old, own):
            os.utime(file, (time.time() - 8 * 24 * 3600,) * 2)
        list(session.run(make_plan(session, [simulated("a")], runs=1, rounds=1, max_rounds=1), 0))
    assert (old.exists(), own.exists()) == (False, True)


def test_on_this_machine_the_agent_ends_with_its_owner(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as host:
        owner = Owner(host="here", pid=host.pid, started=process_started(host.pid))
        with open_session(tmp_path) as session:
            events = session.run(make_plan(session, [simulated("a", sleep_s=60)], owner=owner, watch_owner=True), 0)
            assert next(events)["event"] == "started"
            host.kill()
            host.wait()
            with pytest.raises(DeviceError, match="the process that asked for the benchmark is gone"):
                list(events)
    assert read_owner(tmp_path) is None


def test_rounds_are_added_until_the_median_is_sure(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        vague = make_plan(session, [simulated("a")], ci_width=0.01, max_rounds=5)
        sure = make_plan(session, [simulated("a")], ci_width=0.99, max_rounds=5)
        rounds = [[e["event"] for e in session.run(plan, 20)].count("measured") for plan in (vague, sure)]
    assert rounds == [5, 2]


def test_samples_stand_beside_measurements(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        events = list(session.run(make_plan(session, [simulated("a", sleep_s=1.0)]), 0))
    samples = [e for e in events if e["event"] == "sample"]
    assert len(samples) >= 4
    answer = next(e["answer"] for e in events if e["event"] == "measured")
    assert any(answer["started_s"] < s["monotonic_s"] < answer["started_s"] + answer["wall_s"] for s in samples)


def test_agents_of_unrelated_devices_run_side_by_side(tmp_path: Path) -> None:
    spans: dict[int, tuple[float, float]] = {}

    def measure(index: int) -> None:
        with open_session(tmp_path / str(index)) as session:
            plan = make_plan(session, [simulated("a", sleep_s=3.0)], runs=1, rounds=1, max_rounds=1)
            answer = next(e["answer"] for e in session.run(plan, 0) if e["event"] == "measured")
            spans[index] = (answer["started_s"], answer["started_s"] + answer["wall_s"])

    threads = [threading.Thread(target=measure, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(start for start, _ in spans.values()) < min(end for _, end in spans.values())


HOSTILE = ["a b", "it's", 'say "hi"', "x;touch PWNED", "$(touch PWNED)", "`touch PWNED`", "-rf", "--", "a\nb", "*", "ü"]
names = st.sampled_from(HOSTILE) | st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))


@given(names)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_names_are_passed_on_as_they_are(tmp_path: Path, name: str) -> None:
    link, source = LocalLink(), tmp_path / "source"
    source.write_text(name, encoding="utf-8", newline="")
    target = f"{tmp_path}/{name}.d/{name}.txt"
    link.push(source, target)
    assert link.read(target, 0, 1000).decode() == name
    echoed = link.run(["/bin/echo", "-n", "--", name], timeout_s=10).stdout
    assert echoed == b"-- " + name.encode()
    assert not Path("PWNED").exists()


def test_a_work_folder_of_a_hostile_name(tmp_path: Path) -> None:
    work = tmp_path / "-a 'b' $(touch PWNED);`x` \"c\""
    with open_session(work) as session:
        events = list(session.run(make_plan(session, [simulated("a; $(touch PWNED) 'q'")]), 0))
    assert [e["event"] for e in events].count("measured") == 2
    assert not list(tmp_path.rglob("PWNED"))
    assert not Path("PWNED").exists()
