"""Place a .tflite file's operators by rule and by the runtime, and prove what the GPU computes."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pocketbert.delegation.measure import TIMEOUT_S, Measurement, Rows, measure
from pocketbert.delegation.operators import read_operators
from pocketbert.delegation.predict import Prediction, explained, layers_of, predict
from pocketbert.delegation.profiles import PROFILES
from pocketbert.delegation.rows import made_up_rows
from pocketbert.delegation.rules import Profile
from pocketbert.errors import CheckpointError, DeviceError, ParamsError
from pocketbert.runtimes.base import Precision
from pocketbert.runtimes.litert_log import NoGpuError


@dataclass(frozen=True)
class Delegation:
    """Prediction and, where it was run, measurements of one file."""

    file: str
    prediction: Prediction
    measurements: tuple[Measurement, ...] = ()
    # Why no GPU was asked, where one should have been.
    missing: str | None = None

    @property
    def whole(self) -> bool:
        """The measurements decide, where there are any."""
        return all(m.whole for m in self.measurements) if self.measurements else self.prediction.whole

    @property
    def agreed(self) -> bool | None:
        """Whether rules and runtime count the same operators; None where only one of them has said anything.

        A run that failed says something about the rules only where they foresaw it.
        """
        said = [m for m in self.measurements if m.placement or self.prediction.fails]
        return all(m.delegated == self.prediction.delegated for m in said) if said else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        predicted = asdict(self.prediction) | {"delegated": self.prediction.delegated, "whole": self.prediction.whole}
        return {
            "file": self.file,
            "whole": self.whole,
            "agreed": self.agreed,
            "predicted": predicted,
            "measured": [m.as_dict() for m in self.measurements] or None,
            "missing": self.missing,
        }


def find_profile(name: str) -> Profile:
    """A profile of rules by name; raises ParamsError."""
    if name not in PROFILES:
        raise ParamsError(f"there is no profile {name!r}", f"Known: {', '.join(PROFILES)}.")
    return PROFILES[name]


def predict_file(path: Path, profile: Profile) -> Prediction:
    """Apply a profile's rules to a file; raises CheckpointError for a damaged one."""
    operators = read_operators(path)
    if not operators:
        raise CheckpointError(f"{path} has no operators", "There is nothing to place: name another file.")
    found = predict(operators, profile)
    # The layers cost as much again: they are looked for where there is something to place.
    return predict(operators, profile, layers_of(path)) if found.refused or found.hazards else found


def analyze(
    path: Path,
    profile: Profile,
    *,
    precision: Precision = "fp32",
    ask_gpu: bool = True,
    rows: Rows | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Delegation:
    """Predict, and run rows on this machine's GPU, if asked to and if the profile's runtime is here.

    Where no rows are given they are made up. A run that crashes or hangs is a Measurement with an error; without a GPU
    `missing` says so. Raises CheckpointError for a damaged file and for one whose inputs cannot be made up.
    """
    prediction = predict_file(path, profile)
    if not (ask_gpu and profile.measurable):
        return Delegation(str(path), prediction)
    try:
        found = measure(path, rows or made_up_rows(path), precision, timeout_s=timeout_s)
    except NoGpuError as error:
        return Delegation(str(path), prediction, missing=str(error))
    except DeviceError as error:
        found = Measurement(precision, error=explained(error, prediction))
    return Delegation(str(path), prediction, (replace(found, kind="real" if rows else "made-up"),))
