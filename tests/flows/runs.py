"""Starting flows in a session and looking at what becomes of them."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.flows.conftest import Session, wait_for

RUN_S = 400


def api(session: Session, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{session.prefect_url}/api/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    for _ in range(20):
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                text = response.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            # "Busy, ask again", as Prefect's own client does.
            if error.code != 503:
                raise
            time.sleep(0.5)
    return pytest.fail(f"{path}: busy for 10 s")


def start(session: Session, flow: str, **parameters: Any) -> str:
    deployment = api(session, f"deployments/name/{flow}/{flow}")
    created = api(session, f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    return str(created["id"])


def finished(session: Session, run: str) -> dict[str, Any]:
    terminal = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    state: dict[str, Any] = {}

    def ended() -> bool:
        state.update(api(session, f"flow_runs/{run}")["state"])
        return state["type"] in terminal

    wait_for(ended, RUN_S, f"the end of the flow run, whose log is\n{session.text[-3000:]}")
    return state


def task_states(session: Session, run: str) -> dict[str, str]:
    """Task name and name of its state, in the order in which they started."""
    tasks = api(session, "task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    return {t["name"]: t["state_name"] for t in sorted(tasks, key=lambda t: t["start_time"] or t["created"])}
