"""This machine as a device."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from pocketbert.devices.base import HostFacts, read_answer, read_request
from pocketbert.devices.telemetry import read_host_facts
from pocketbert.errors import DeviceError


class LocalDevice:
    """Runs the worker as a child process that dies with this one."""

    def facts(self) -> HostFacts:
        """Describe this machine as it is now."""
        return read_host_facts("local")

    def run_worker(self, work: Path, timeout_s: float) -> None:
        """Run the request in `work` in a fresh process; raises DeviceError on a crash, a hang or no answer."""
        threads = str(read_request(work).threads)
        environment = os.environ | {
            "POCKETBERT_WORKER": "1",
            # torch's OpenMP pool is sized at import; the others take the number as an argument.
            "OMP_NUM_THREADS": threads,
            "USE_TF": "0",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "pocketbert.devices.worker", str(work.resolve())]
        try:
            done = subprocess.run(  # noqa: S603
                command, env=environment, capture_output=True, text=True, errors="replace",
                stdin=subprocess.DEVNULL, timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                f"the worker did not answer within {timeout_s:g} s and was killed",
                "Raise benchmark.timeout_s if the model is that slow.",
            ) from error
        if done.returncode != 0:
            raise DeviceError(_explain(done.returncode, done.stderr), "Try the model with `pocketbert predict`.")
        read_answer(work)


def _explain(returncode: int, stderr: str) -> str:
    """How a worker ended, with the last line that it had to say."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = f": {lines[-1][:300]}" if lines else ""
    if returncode < 0:
        return f"the worker was killed by {signal.Signals(-returncode).name}{said}"
    return f"the worker failed with exit code {returncode}{said}"
