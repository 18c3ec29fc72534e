"""Stages go from clone to clone through the DVC remote."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.own_params import overridden
from flows.remote import Remote, RemoteError
from flows.workspace import stage_order
from pocketbert.errors import ParamsError
from pocketbert.params import load_params
from tests.team.conftest import Store, clone, commit, make_seed, run

DVC_YAML = """
stages:
  first:
    cmd: python step.py first
    deps: [step.py]
    outs: [first]
  left:
    cmd: python step.py left
    deps: [step.py, first]
    params: [distill.temperature]
    outs: [left]
  right:
    cmd: python step.py right
    deps: [step.py, first]
    outs: [right]
  group:
    foreach: [a, b]
    do:
      cmd: python step.py group-${item}
      deps: [step.py, left, right]
      outs: ["group-${item}"]
"""
# Where it ran is seen by the log.
STEP = """
import sys
from pathlib import Path
Path(sys.argv[1]).mkdir()
Path(sys.argv[1], "out.txt").write_text(sys.argv[1])
with Path("ran.log").open("a") as log:
    print(sys.argv[1], file=log)
"""
Enter = Callable[[Path], None]


@pytest.fixture
def seed(tmp_path: Path, s3: Store) -> Path:
    root = make_seed(tmp_path / "seed")
    (root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (root / "step.py").write_text(STEP, encoding="utf-8")
    (root / ".gitignore").write_text("/first\n/left\n/right\n/group-*\nran.log\n/.pocketbert\n")
    commit(root)
    return root


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, s3: Store) -> Enter:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return monkeypatch.chdir


def build(*targets: str) -> list[str]:
    """As the flow does it, but in this process; returns the stages that ran here."""
    from dvc.repo import Repo

    remote, log, ran = Remote(), Path("ran.log"), []
    for stage in stage_order(targets):
        remote.receive(stage)
        with Repo() as repo:
            repo.reproduce([stage], single_item=True)
        if log.exists():
            ran.append(log.read_text().strip())
            log.unlink()
            remote.send(stage)
    return ran


def test_two_clones_build_different_stages_and_nothing_twice(seed: Path, enter: Enter) -> None:
    a, b = clone(seed, "a"), clone(seed, "b")
    enter(a)
    assert build("left") == ["first", "left"]
    enter(b)
    assert build("right") == ["right"]
    assert Path("first/out.txt").read_text() == "first"
    assert not Path("left").exists()
    assert sorted(build()) == ["group-a", "group-b"]
    enter(a)
    assert build() == []
    assert Path("group-b/out.txt").read_text() == "group-b"
    # And again, with everything there.
    assert build() == []


def test_outputs_that_are_in_the_way_are_replaced(seed: Path, enter: Enter) -> None:
    a, b = clone(seed, "a"), clone(seed, "b")
    enter(a)
    build("first")
    enter(b)
    Path("first").mkdir()
    Path("first/out.txt").write_text("of an experiment")
    Path("first/more.txt").write_text("of an experiment")
    assert build("first") == []
    assert {path.name: path.read_text() for path in Path("first").iterdir()} == {"out.txt": "first"}


def test_a_known_run_without_its_data_is_built_again(seed: Path, enter: Enter, s3: Store) -> None:
    a, b = clone(seed, "a"), clone(seed, "b")
    enter(a)
    build("first")
    # As after a lost object.
    code = f"""
import boto3
bucket = boto3.resource("s3").Bucket("pocketbert")
bucket.objects.filter(Prefix="{seed.parent.name}/files/").delete()
"""
    run(a, sys.executable, "-c", code, variables=s3.environment)
    enter(b)
    assert build("first") == ["first"]


def test_the_order_of_targets_and_unknown_ones(seed: Path, enter: Enter) -> None:
    enter(seed)
    assert sorted(stage_order(["group"])[-2:]) == ["group@a", "group@b"]
    assert stage_order(["right"]) == ["first", "right"]
    assert stage_order(["group@a"])[-1] == "group@a"
    assert "group@b" not in stage_order(["group@a"])
    with pytest.raises(ParamsError, match=r"no stage 'lefft'.*Known: first, group, left, right"):
        stage_order(["lefft"])


def test_a_store_that_is_away_is_one_clear_error(seed: Path, enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(clone(seed, "a"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(RemoteError, match=r"the DVC remote s3://pocketbert/.* cannot be used: .*127.0.0.1:9"):
        Remote().receive("first")
    with pytest.raises(RemoteError, match="cannot be used"):
        Remote().send()


def test_a_clone_without_a_remote_says_so(seed: Path, enter: Enter) -> None:
    enter(seed)
    (seed / ".dvc/config").write_text("")
    with pytest.raises(ParamsError, match="dvc remote add --default team"):
        Remote()


def test_overrides_last_as_long_as_the_flow(seed: Path, enter: Enter) -> None:
    enter(seed)
    params = seed / "params.yaml"
    before = params.read_bytes()
    with overridden(["distill.temperature=3.0"]):
        assert load_params().distill.temperature == 3.0
    assert params.read_bytes() == before
    with pytest.raises(ParamsError), overridden(["distill.temperature=3.0", "distill.warmth=1"]):
        pytest.fail("applied")
    assert params.read_bytes() == before
    # Killed: nothing ran after the block.
    killed = [overridden(["distill.temperature=4.0"]) for _ in range(2)]
    killed[0].__enter__()
    assert load_params().distill.temperature == 4.0
    with overridden([]):
        assert params.read_bytes() == before
    killed[1].__enter__()
    newer = before + b"# pulled since\n"
    params.write_bytes(newer)
    with overridden(["distill.temperature=5.0"]):
        assert load_params().distill.temperature == 5.0
    assert params.read_bytes() == newer
