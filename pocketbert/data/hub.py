"""Data sets of the Hugging Face hub: the local cache first, then the hub."""

import logging
from pathlib import Path
from typing import Any

from pocketbert.data.table import WHOLE, Table, split_named
from pocketbert.errors import DataError
from pocketbert.params import HubDataset

_log = logging.getLogger("pocketbert.data")


def load_hub(hub: HubDataset) -> dict[str, Table]:
    """Read a data set by its hub name, or from a folder in the hub's layout; raises DataError."""
    splits = dict(_load(hub))
    named: dict[str, Table] = {}
    for name, rows in splits.items():
        split = split_named(name)
        if split and split not in named:
            named[split] = _table(rows, f"{hub.name}[{name}]")
    if "train" in named:
        return named
    if len(splits) == 1:
        name, rows = next(iter(splits.items()))
        return {WHOLE: _table(rows, f"{hub.name}[{name}]")}
    raise DataError(
        f"the hub data set {hub.name!r} has no train split but {', '.join(splits)}",
        "Choose another prepare.hub.config, or export the wanted splits to files and set prepare.path.",
    )


def _load(hub: HubDataset) -> Any:
    """The data set's DatasetDict."""
    from datasets import load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    folder = Path(hub.name)
    try:
        if (folder / "dataset_dict.json").is_file():
            return load_from_disk(hub.name)
        cached = None if folder.is_dir() else _load_cached(hub)
        if cached is not None:
            return cached
        _log.info("looking for the data set %s on the hub", hub.name)
        # Each of its retries would print a warning; the failure itself is raised.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        return load_dataset(hub.name, hub.config, revision=hub.revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"the hub data set {hub.name!r} cannot be loaded: {reason}",
            "Check prepare.hub (name, config, revision) and the network, or download its files and set prepare.path.",
        ) from error


def _load_cached(hub: HubDataset) -> Any:
    """What an earlier load left in the cache of `datasets`, or None (also where a revision is asked for)."""
    from datasets.packaged_modules.cache.cache import Cache

    if hub.revision:
        return None
    name = hub.name.split("/")[-1]
    try:
        builder = Cache(dataset_name=name, repo_id=hub.name, config_name=hub.config, version="auto", hash="auto")
        return builder.as_dataset()
    except (OSError, ValueError) as error:
        _log.debug("%s is not in the cache: %s", hub.name, error)
        return None


def _table(rows: Any, source: str) -> Table:
    from datasets import ClassLabel

    class_names: dict[str, list[str]] = {}
    for name, feature in rows.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, ClassLabel) and inner.names:
            class_names[name] = list(inner.names)
    return Table(rows.to_dict(), source, class_names)
