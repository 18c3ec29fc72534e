"""Fixtures that cost minutes are made once a run and shared."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


# Files that take longest, first: no worker is left alone with one at the end.
LONGEST = (
    "tests/test_pipeline.py", "tests/flows/test_up.py", "tests/team/test_team.py", "tests/training/test_resume.py",
    "tests/training/test_processes.py",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order whole files: the longest, then the others as they were found."""
    rank = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(LONGEST)))


@dataclass(frozen=True)
class Project:
    """A copy of the project in a git repository of its own, with this environment as its .venv."""

    root: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a user's shell after `. .venv/bin/activate`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_", "POCKETBERT_", "PYTEST_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "PATH": path, "HF_HUB_OFFLINE": "1", **self.variables}

    def run(self, *command: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; on failure show what it said."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, input=input, timeout=900
        )
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(command)} -> {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done


def copy_project(target: Path) -> Project:
    """Copy what git tracks, and what it would track, into a fresh repository with one commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / ".venv").symlink_to(sys.prefix)
    project = Project(target)
    for command in (
        ["git", "init", "--quiet", "--initial-branch=main"],
        ["git", "config", "user.name", "test"],
        ["git", "config", "user.email", "test@example.invalid"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message=copy"],
    ):
        project.run(*command)
    return project


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The tiny profile, built by one `dvc repro`; its output is kept in repro.log."""
    project = copy_project(tmp_path_factory.mktemp("tiny") / "project")
    project.run("pocketbert", "params", "merge", "profiles/tiny.yaml")
    project.run("git", "commit", "--quiet", "--all", "--message=tiny profile")
    done = project.run("dvc", "repro")
    (project.root / "repro.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    yield project
    # Weights of a session are gigabytes in a few runs.
    shutil.rmtree(project.root, ignore_errors=True)


@pytest.fixture(scope="session")
def datasets() -> Path:
    """Folder of real data sets; outside CI a missing one skips, in CI it fails."""
    folder = os.environ.get("POCKETBERT_DATASETS")
    if folder is None:
        reason = "set POCKETBERT_DATASETS to a folder with clinc150/ and thucnews_titles/"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(folder)
