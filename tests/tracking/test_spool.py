import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.tracking.spool import End, Points, Position, Spool, Start, Texts, left_behind

EVENTS = st.one_of(
    st.builds(Points, time_ms=st.integers(0, 2**50), step=st.integers(0, 2**40),
              metrics=st.dictionaries(st.text(), st.floats(allow_nan=False))),
    st.builds(Texts, time_ms=st.integers(0, 2**50), tags=st.dictionaries(st.text(), st.text())),
    st.builds(Start, time_ms=st.integers(0, 2**50), execution_id=st.text(), run_name=st.text(),
              params=st.dictionaries(st.text(), st.text()), tags=st.dictionaries(st.text(), st.text())),
    st.builds(End, time_ms=st.integers(0, 2**50), status=st.sampled_from(["FINISHED", "FAILED", "KILLED"])),
)  # fmt: skip


@given(st.lists(EVENTS, max_size=8), st.integers(1, 3))
def test_what_is_appended_is_read_in_any_portions(
    tmp_path_factory: pytest.TempPathFactory, events: list[Start | Points | Texts | End], limit: int
) -> None:
    spool = Spool.create(tmp_path_factory.mktemp("spool"), "a")
    for event in events:
        spool.append(event)
    read, offset = [], 0
    while portion := list(spool.read(offset, limit)):
        read += [event for event, _ in portion]
        offset = portion[-1][1]
    spool.close()
    assert read == events


def test_nan_and_infinity_survive(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "a")
    spool.append(Points(time_ms=1, step=1, metrics={"nan": math.nan, "inf": math.inf}))
    ((event, _),) = spool.read(0)
    assert isinstance(event, Points)
    assert math.isnan(event.metrics["nan"]) and event.metrics["inf"] == math.inf


def test_a_torn_line_waits_and_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "a")
    spool.append(End(time_ms=1, status="FINISHED"))
    with spool.path.open("ab") as stream:
        stream.write(b'{"kind": "no such"}\n{"kind": "points", "st')
    read = list(spool.read(0))
    assert [event for event, _ in read] == [End(time_ms=1, status="FINISHED"), None]
    assert list(spool.read(read[-1][1])) == []


def test_a_living_owner_keeps_its_spool(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "a")
    assert Spool.adopt(spool.path) is None
    spool.close()
    adopted = Spool.adopt(spool.path)
    assert adopted is not None
    assert Spool.adopt(spool.path) is None
    adopted.remove()
    assert left_behind(tmp_path) == []
    assert Spool.adopt(spool.path) is None


def test_another_store_starts_from_the_beginning(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "a")
    spool.save_position(Position(store="one", run_id="r", offset=7))
    assert spool.position("one").offset == 7
    assert spool.position("two") == Position(store="two")
    spool.path.with_suffix(".sent").write_text("{broken")
    assert spool.position("one") == Position(store="one")


def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    assert Spool.create(tmp_path, "a").path.stat().st_mode & 0o077 == 0
