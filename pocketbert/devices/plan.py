"""Make the plan of a benchmark: push what it needs, and say where it lies on the device."""

import fnmatch
import hashlib
from collections.abc import Sequence
from pathlib import Path

from pocketbert.devices.base import Plan, PlannedArtifact, Sustained
from pocketbert.devices.benchmark_tool import write_raw_rows
from pocketbert.devices.companions import find_companions, read_parts
from pocketbert.devices.inputs import encode_rows, write_inputs
from pocketbert.devices.inventory import AdbParams, LocalParams, SshParams
from pocketbert.devices.links.base import DiskFull
from pocketbert.devices.rows import count_operators
from pocketbert.devices.session import DeviceSession, this_process
from pocketbert.devices.targets import Target
from pocketbert.errors import CheckpointError
from pocketbert.params import BenchmarkParams
from pocketbert.partition.fit import fit_memory


def make_plan(
    params: BenchmarkParams,
    device: LocalParams | SshParams | AdbParams,
    session: DeviceSession,
    targets: Sequence[Target],
    texts: Sequence[str],
    scratch: Path,
) -> tuple[Plan, dict[str, str]]:
    """Push the runtimes' environment, models and rows; with the plan, why it leaves a target out, by its key.

    Left out is what cannot be read here or finds no room there; raises DeviceError where nothing can be pushed.
    """
    interpreter, environment = session.python, dict[str, str]()
    engines = sorted({target.engine for target in targets} - {"native"})
    # Before the models: without it none of them is measured, however much room they leave.
    if not isinstance(device, LocalParams) and device.environment == "wheels" and engines:
        interpreter, environment = session.install(engines)
    if device.gpu is not None and device.gpu.icd is not None:
        # Vulkan's loader before and since 1.3.207.
        environment |= {"VK_ICD_FILENAMES": device.gpu.icd, "VK_DRIVER_FILES": device.gpu.icd}
    planned, refused = list[PlannedArtifact](), dict[str, str]()
    for target in targets:
        try:
            planned.append(_push(params, device, session, target, texts, scratch))
        except (DiskFull, CheckpointError) as error:
            refused[target.key] = str(error)
    wanted = params.sustained.artifacts if params.sustained.seconds else []
    sustained = [
        t.key
        for t in targets
        if t.key not in refused and any(fnmatch.fnmatchcase(t.artifact.name, pattern) for pattern in wanted)
    ]
    plan = Plan(
        work=session.work,
        agent=session.agent,
        interpreter=interpreter,
        environment=environment,
        owner=this_process(),
        watch_owner=isinstance(device, LocalParams),
        artifacts=planned,
        sustained=Sustained(seconds=params.sustained.seconds, artifacts=sustained),
        cool_down_s=device.limits.cool_down_s,
        max_temperature_c=device.limits.max_temperature_c,
        governor=device.governor,
        **params.model_dump(exclude={"sequence_length", "sustained"}),
    )
    return plan, refused


def _push(
    params: BenchmarkParams,
    device: LocalParams | SshParams | AdbParams,
    session: DeviceSession,
    target: Target,
    texts: Sequence[str],
    scratch: Path,
) -> PlannedArtifact:
    inputs = scratch / f"{target.artifact.name}.npz"
    if not inputs.exists():
        write_inputs(params, target.artifact, texts, inputs)
    planned = PlannedArtifact(
        name=target.key,
        engine=target.engine,
        model=str(target.artifact.folder.resolve()),
        inputs=session.store(inputs, _md5(inputs)),
        accelerator=target.accelerator,
        gpu_precision=target.gpu_precision,
        software_gpu=device.gpu is not None and device.gpu.software_gpu,
        total_ops=count_operators(target.artifact),
    )
    if target.engine == "pocketbert":  # reads the whole folder, where it lies
        return planned
    runner = device.runner if target.engine == "native" else None
    artifact = target.artifact if runner else fit_memory(target.artifact, device.limits.max_memory_mb)
    files = runner.files if runner else find_companions(artifact)
    stored = {name: session.store(path, _md5(path)) for name, path in files.items()}
    if runner and not isinstance(device, LocalParams):
        # What is pushed is plain data; here it is linked, and is what the user made it.
        session.make_executable(list(stored.values()))
    if runner and runner.answer == "benchmark_model":
        raw = scratch / f"{artifact.name}.raw"
        layers = write_raw_rows(artifact, encode_rows(params, artifact, texts), raw)
        planned = planned.model_copy(
            update={
                "inputs": session.store(raw, _md5(raw)),
                "layer_shapes": [list(shape) for shape in layers.shapes],
                "layer_sizes": list(layers.sizes),
            }
        )
    return planned.model_copy(
        update={
            "model": session.store(artifact.model_path, artifact.md5()),
            "files": stored,
            "parts": read_parts(artifact),
            "command": runner.command if runner else [],
        }
    )


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
