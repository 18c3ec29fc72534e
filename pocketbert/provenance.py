"""What a stage's outputs were made of: versions, seed, git commit, input hash, execution."""

import json
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pocketbert.params import Section
from pocketbert.redaction import hide_secrets_in

_PACKAGES = (
    "ai-edge-litert", "ai-edge-quantizer", "dvc", "mlflow", "numpy", "onnx", "onnxruntime", "optimum",
    "optimum-onnx", "pocketbert", "tensorflow", "tokenizers", "torch", "transformers",
)  # fmt: skip


def write_provenance(
    path: Path,
    *,
    stage: str,
    params: Section,
    input_hash: str,
    execution_id: str,
    started: float,
) -> None:
    """Write provenance/<stage>.json; `started` is in seconds since the epoch."""
    document = {
        "stage": stage,
        "params": hide_secrets_in(params.model_dump(mode="json", by_alias=True)),
        "seed": getattr(params, "seed", None),
        "input_hash": input_hash,
        "git_commit": git_commit(),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        # A tag of the MLflow run, whose own id is not known before the store has answered.
        "execution_id": execution_id,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(time.time() - started, 3),
        "python": platform.python_version(),
        "machine": {"processor": processor_name(), "system": platform.platform()},
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.rename(path)


def git_commit() -> str | None:
    """The commit that is checked out, None outside a repository or without git."""
    return _git("rev-parse", "HEAD")


def processor_name() -> str:
    """The processor's own name where /proc/cpuinfo tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of a git command, None outside a repository or without git."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
