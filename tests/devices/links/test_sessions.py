"""A benchmark by the real agent over a real link that breaks: nothing is lost, nothing doubled, nothing left."""

import json
import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from pocketbert.devices.agent.lock import read_owner
from pocketbert.devices.follow import Patience
from tests.devices.agents import make_plan, open_session, simulated
from tests.devices.links.adbd import Adbd
from tests.devices.links.sshd import Sshd

PATIENCE = Patience(poll_s=0.1, silence_s=20.0, reconnect_s=30.0)


@pytest.fixture(params=["ssh", "adb"], scope="module")
def server(request: pytest.FixtureRequest) -> Sshd | Adbd:
    fixture: Sshd | Adbd = request.getfixturevalue(f"{request.param}d")
    return fixture


@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_a_benchmark_over_a_link_that_breaks(server: Sshd | Adbd, how: str) -> None:
    work = server.device / f"work {os.urandom(4).hex()}"
    artifacts = [simulated(name, sleep_s=0.3) for name in "abc"]
    events = []
    with open_session(work, server.link(), PATIENCE) as session:
        for event in session.run(make_plan(session, artifacts), 0):
            events.append(event)
            if event["event"] == "measured" and how == "cut":
                server.cut()
            elif event["event"] == "measured" and len([e for e in events if e["event"] == "measured"]) == 2:
                # Longer than the keep-alive of SSH; the agent goes on meanwhile.
                threading.Timer(5.0, server.thaw, [server.freeze()]).start()
        spool = Path(session.folder, "spool.jsonl").read_text(encoding="utf-8")
    assert events == [json.loads(line) for line in spool.splitlines()]
    measured = Counter((event["artifact"], event["round"]) for event in events if event["event"] == "measured")
    assert measured == {(name, index): 1 for name in "abc" for index in (0, 1)}
    assert len([event for event in events if event["event"] == "started"]) == 1
    assert read_owner(work) is None
