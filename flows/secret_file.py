"""Secrets from the environment, else from a file of NAME=value lines that only its owner may read."""

import difflib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketbert.errors import ParamsError

# Both servers ask for these.
LOGINS = ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
# Without them, boto3 looks for a role or ~/.aws, and libpq for ~/.pgpass.
CLIENT_SECRETS = (*LOGINS, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SERVER_SECRETS = ("PGPASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
_KNOWN = (*CLIENT_SECRETS, *SERVER_SECRETS)
# MLflow refuses a shorter password of its administrator.
_PASSWORD_LENGTH = 12


def read_secrets(
    path: Path, names: Sequence[str], required: Sequence[str], environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Those of `names` that are set; raises ParamsError, never with a value in it."""
    found = _read_file(path) | {name: environment[name] for name in _KNOWN if environment.get(name)}
    missing = [name for name in required if name not in found]
    if missing:
        raise ParamsError(
            f"no {', '.join(missing)} in the environment or in {path}",
            f"Set it, or write {missing[0]}=... into {path} and run: chmod 600 {path}",
        )
    _check(found)
    return {name: found[name] for name in names if name in found}


def _check(found: Mapping[str, str]) -> None:
    user, _, password = found.get("PREFECT_API_AUTH_STRING", "user:password").partition(":")
    if not user or not password:
        raise ParamsError("PREFECT_API_AUTH_STRING is not USER:PASSWORD", "Give both, with a colon between them.")
    if len(found.get("MLFLOW_TRACKING_PASSWORD", "-" * _PASSWORD_LENGTH)) < _PASSWORD_LENGTH:
        raise ParamsError("MLFLOW_TRACKING_PASSWORD is too short", f"Take {_PASSWORD_LENGTH} characters or more.")


def _read_file(path: Path) -> dict[str, str]:
    try:
        # One file from the check to the reading.
        with path.open(encoding="utf-8") as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.geteuid():
                raise ParamsError(f"{path} belongs to another user", f"Run: chown {os.geteuid()} {path}")
            if stat.S_IMODE(status.st_mode) & 0o177:
                mode = f"{stat.S_IMODE(status.st_mode):o}"
                raise ParamsError(f"{path} has mode {mode}, others could read it", f"Run: chmod 600 {path}")
            lines = stream.read().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ParamsError(f"{path} cannot be read ({reason})", "Allow reading, or set the variables.") from error
    return dict(_parse(path, number, line) for number, line in enumerate(lines, 1) if _holds_something(line))


def _holds_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _parse(path: Path, number: int, line: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    name, value = name.strip(), value.strip()
    # What is no known name may be a password: only the number of its line is told.
    near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.8)
    if not equals or not value or name not in _KNOWN:
        fix = f"Did you mean {near[0]}?" if near else f"Write one of {', '.join(_KNOWN)}; # begins a comment."
        raise ParamsError(f"{path}, line {number} is not NAME=value of a known name", fix)
    return name, value
