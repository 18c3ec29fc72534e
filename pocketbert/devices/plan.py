"""Make the plan of a benchmark: push what it needs, and say where it lies on the device."""

import fnmatch
import hashlib
from collections.abc import Sequence
from pathlib import Path

from pocketbert.artifacts import COMPANIONS, Artifact
from pocketbert.devices.base import Plan, PlannedArtifact, Sustained
from pocketbert.devices.inputs import write_inputs
from pocketbert.devices.inventory import AdbParams, LocalParams, SshParams
from pocketbert.devices.session import DeviceSession, this_process
from pocketbert.devices.targets import Target
from pocketbert.params import BenchmarkParams
from pocketbert.partition.fit import fit_memory


def make_plan(
    params: BenchmarkParams,
    device: LocalParams | SshParams | AdbParams,
    session: DeviceSession,
    targets: Sequence[Target],
    texts: Sequence[str],
    scratch: Path,
) -> Plan:
    """Push models, rows and the runtimes' environment; raises DeviceError."""
    planned = [_push(params, device, session, target, texts, scratch) for target in targets]
    interpreter, environment = session.python, dict[str, str]()
    engines = sorted({target.engine for target in targets} - {"native"})
    if not isinstance(device, LocalParams) and device.environment == "wheels" and engines:
        interpreter, environment = session.install(engines)
    wanted = params.sustained.artifacts if params.sustained.seconds else []
    sustained = [t.key for t in targets if any(fnmatch.fnmatchcase(t.artifact.name, pattern) for pattern in wanted)]
    return Plan(
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
    )
    if target.engine == "pocketbert":  # reads the whole folder, where it lies
        return planned
    runner = device.runner if target.engine == "native" else None
    artifact = target.artifact if runner else fit_memory(target.artifact, device.limits.max_memory_mb)
    parts = _read_parts(artifact)
    beside = {name: artifact.folder / name for name in (*COMPANIONS, *(str(part["file"]) for part in parts))}
    files = runner.files if runner else {name: path for name, path in beside.items() if path.is_file()}
    stored = {name: session.store(path, _md5(path)) for name, path in files.items()}
    if runner and not isinstance(device, LocalParams):
        # What is pushed is plain data; here it is linked, and is what the user made it.
        session.make_executable(list(stored.values()))
    return planned.model_copy(
        update={
            "model": session.store(artifact.model_path, artifact.md5()),
            "files": stored,
            "parts": parts,
            "command": runner.command if runner else [],
        }
    )


def _read_parts(artifact: Artifact) -> list[dict[str, object]]:
    """The manifest's entries of a model in parts; none of a whole one."""
    if not artifact.in_parts:
        return []
    from pocketbert.partition.manifest import read_manifest

    return [part.model_dump(mode="json") for part in read_manifest(artifact.model_path).parts]


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
