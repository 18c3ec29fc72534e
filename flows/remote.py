"""The team's DVC remote, for a clone that shares no disk with the others: before a stage what others have built
comes from there, after it what was built here goes there.

A stage is found by DVC's own cache of runs: what it was made of, and the hashes of what it made.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from flows.team import selected_team
from pocketbert.errors import ParamsError, TrackingError
from pocketbert.redaction import hide_secrets

_RUNS = "runs"


class RemoteError(TrackingError):
    """The DVC remote cannot be reached or refuses; the same may work a little later."""


class Remote:
    """DVC's default remote of this clone; raises ParamsError where there is none."""

    def __init__(self) -> None:
        # What DVC logs of each file is no line of the flow.
        logging.getLogger("dvc").setLevel(logging.ERROR)
        self._knows_runs = False
        with _repo() as repo:
            name = repo.config["core"].get("remote")
            if name is None:
                raise ParamsError(
                    "DVC has no default remote to share stages by",
                    "Run: dvc remote add --default team s3://BUCKET/FOLDER, and commit .dvc/config.",
                )
            self._url = hide_secrets(repo.config["remote"][name]["url"])

    def receive_runs(self) -> int:
        """Copy the entries of the run cache that this clone has not; returns how many."""
        with self._explained(), _repo() as repo:
            return _copy_missing(self._runs(repo), repo.cache.legacy)

    def receive(self, stage: str) -> bool:
        """Fetch and check out a stage's outputs where its present inputs have been built anywhere; False if not."""
        from dvc.stage.cache import RunCacheNotFoundError

        if not self._knows_runs:
            self.receive_runs()
            self._knows_runs = True
        with self._explained(), _repo() as repo, repo.lock:
            (found,) = repo.stage.collect(stage)
            if not all(dependency.exists for dependency in found.deps) or not found.changed():
                return False
            found.remove_outs(ignore_remove=False, force=False)
            try:
                repo.stage_cache.restore(found, pull=True)
            except RunCacheNotFoundError:
                return False
            return True

    def send(self, stage: str | None = None) -> None:
        """Push the outputs of a stage (of all stages), and then what tells others of them."""
        with self._explained(), _repo() as repo:
            repo.push(targets=[stage] if stage else None)
            _copy_missing(repo.cache.legacy, self._runs(repo))

    @staticmethod
    def _runs(repo: Any) -> Any:
        # The cache of runs is kept where DVC 2 kept everything.
        return repo.cloud.get_remote_odb(None, _RUNS, hash_name="md5-dos2unix")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError
        from dvc.exceptions import DownloadError, UploadError

        try:
            yield
        # s3fs turns refusals into OSError.
        except (BotoCoreError, ClientError, DownloadError, UploadError, OSError) as error:
            raise RemoteError(
                f"the DVC remote {self._url} cannot be used: {hide_secrets(str(error))}",
                "Correct the remote (.dvc/config), s3 in team.yaml or the keys, or wait until the store answers.",
            ) from error


@cache
def team_remote() -> Remote | None:
    """The remote under POCKETBERT_PROFILE=team; None where this clone works for itself."""
    return None if selected_team() is None else Remote()


@contextmanager
def _repo() -> Iterator[Any]:
    from dvc.repo import Repo

    with Repo() as repo:
        yield repo


def _copy_missing(source: Any, target: Any) -> int:
    """Copy those files below `runs` that the target lacks: an entry's name is the hash of what it says.

    (DVC's own way, `--run-cache`, copies all of them each time.)
    """
    from dvc.fs import generic

    missing = sorted(_entries(source) - _entries(target))
    for entry in missing:
        generic.copy(
            source.fs, source.fs.join(source.path, _RUNS, *entry), target.fs, target.fs.join(target.path, _RUNS, *entry)
        )
    return len(missing)


def _entries(store: Any) -> set[tuple[str, ...]]:
    root = store.fs.join(store.path, _RUNS)
    if not store.fs.exists(root):
        return set()
    return {store.fs.relparts(path, root) for path in store.fs.find(root)}
