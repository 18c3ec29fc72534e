"""Where the NaN or infinity in a file's output comes from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.comparison.rows import Row
from pocketbert.comparison.side import FileSide
from pocketbert.errors import ProofError


def explain_nonfinite(side: Any, rows: Sequence[tuple[str, Row]], error: ProofError) -> ProofError:
    """`error` with the first tensor of a file that is not finite, and its producer; as it is for a torch folder."""
    if not isinstance(side, FileSide):
        return error
    from pocketbert.numerics.dump import open_dump
    from pocketbert.numerics.half_proof import way_out
    from pocketbert.numerics.nonfinite import first_nonfinite

    found = first_nonfinite(open_dump(side.path), ((kind, side.arrays(row)) for kind, row in rows))
    if found is None:
        return error
    return ProofError(f"{error.cause}: {found}", way_out(found, side.path.suffix.removeprefix(".")))


def explain_pair(
    sides: Sequence[Any], outputs: Sequence[NDArray[np.float32]], rows: Sequence[Row], error: ProofError
) -> ProofError:
    """`explain_nonfinite` for the first side whose logits [rows, classes] are not finite, on its first such row."""
    for side, logits in zip(sides, outputs, strict=True):
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            return explain_nonfinite(side, [(f"data, {int(bad[0]) + 1} of those compared", rows[int(bad[0])])], error)
    return error
