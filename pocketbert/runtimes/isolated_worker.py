"""One isolated run: `python -m pocketbert.runtimes.isolated_worker WORK_FOLDER` (runtimes/isolated.py)."""

import json
import os
import sys
from pathlib import Path

import numpy as np

from pocketbert.errors import PocketBertError
from pocketbert.process import die_with_parent
from pocketbert.runtimes.base import Runtime
from pocketbert.runtimes.isolated import (
    ERROR_FILE,
    INPUTS_FILE,
    NO_GPU_EXIT,
    OUTPUTS_FILE,
    PLACEMENT,
    PLACEMENT_FILE,
    REQUEST_FILE,
    RunRequest,
)
from pocketbert.runtimes.litert_log import NoGpuError


def run(work: Path) -> None:
    """Load, run every row of inputs.npz, write the outputs and the placement."""
    request = RunRequest.model_validate_json((work / REQUEST_FILE).read_bytes())
    # Mesa's drivers complain where there is none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(work))
    runtime = _load(request)
    with np.load(work / INPUTS_FILE, allow_pickle=False) as rows:
        outputs = runtime.run({name: rows[name] for name in rows.files})
    np.save(work / OUTPUTS_FILE, outputs, allow_pickle=False)
    (work / PLACEMENT_FILE).write_bytes(PLACEMENT.dump_json(runtime.placement()))


def _load(request: RunRequest) -> Runtime:
    if request.model.suffix == ".bin":
        from pocketbert.runtimes.ncnn_runtime import NcnnRuntime

        return NcnnRuntime(request.model, request.accelerator, request.precision, request.threads)
    if request.accelerator == "gpu":
        from pocketbert.runtimes.litert_gpu import LiteRtGpuRuntime

        return LiteRtGpuRuntime(request.model, request.precision, request.threads)
    from pocketbert.runtimes.litert_runtime import open_file

    return open_file(request.model, request.threads)


def main() -> None:
    """Run the request in the folder named on the command line."""
    die_with_parent()
    work = Path(sys.argv[1])
    try:
        run(work)
        code = 0
    except NoGpuError:
        code = NO_GPU_EXIT
    except PocketBertError as error:
        (work / ERROR_FILE).write_text(json.dumps([error.cause, error.fix]), encoding="utf-8")
        code = error.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    # LiteRT's destructors are known to crash at interpreter exit; the answer is on disk.
    os._exit(code)


if __name__ == "__main__":
    main()
