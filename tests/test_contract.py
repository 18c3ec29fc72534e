"""dvc.yaml, params.yaml, pocketbert/params/ and stages/ say the same."""

import ast
import dataclasses
import importlib
import inspect
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML

from pocketbert.params import Params, load_params

ROOT = Path(__file__).parent.parent
DVC: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
RAW_PARAMS: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
STAGES: list[str] = list(DVC["stages"])


def declaration(stage: str) -> dict[str, Any]:
    entry = DVC["stages"][stage]
    return entry.get("do", entry)


def module(stage: str) -> ModuleType:
    return importlib.import_module(f"stages.{stage}")


def bundles(stage: str) -> tuple[dict[str, str], dict[str, str]]:
    parameters = list(inspect.signature(getattr(module(stage), stage)).parameters.values())
    inputs, outputs = ({f.name: str(f.default) for f in dataclasses.fields(p.annotation)} for p in parameters[1:3])
    return inputs, outputs


def instance(stage: str, path: str) -> str:
    """A path of a module, with its `{name}` written as DVC's `${key}`."""
    names = list(inspect.signature(getattr(module(stage), stage)).parameters)[3:]
    return path.format(**dict.fromkeys(names, "${key}"))


def test_every_stage_has_a_module_and_every_module_a_stage() -> None:
    modules = {p.stem for p in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_command_runs_the_module_of_the_same_name(stage: str) -> None:
    words = shlex.split(declaration(stage)["cmd"])
    assert words[:3] == ["python", "-m", f"stages.{stage}"]
    extra = list(inspect.signature(getattr(module(stage), stage)).parameters)[3:]
    # DVC pastes ${key} into the command as it is: a name could be one. This variable of its own it only sets.
    assert words[3:] == ["$DVC_STAGE"] * len(extra)


@pytest.mark.parametrize("stage", STAGES)
def test_inputs_are_declared_as_deps(stage: str) -> None:
    deps = set(declaration(stage)["deps"])
    for path in bundles(stage)[0].values():
        # quantize reads the one source that its recipe names.
        assert path in deps or (path.startswith("models/") and "models/${item.format}" in deps), path


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_are_declared_as_outs(stage: str) -> None:
    entry = declaration(stage)
    suffix = "/${key}" if "do" in DVC["stages"][stage] else ""
    # An output is a path, or a path with options.
    declared = {path for out in (*entry["outs"], *entry.get("plots", []), *entry["metrics"])
                for path in (out if isinstance(out, dict) else [out])}  # fmt: skip
    own = {instance(stage, path) for path in bundles(stage)[1].values()}
    assert declared == own | {f"provenance/{stage}{suffix}.json", f"metrics/{stage}{suffix}.json"}


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_stage_s_own_section(stage: str) -> None:
    declared = declaration(stage)["params"]
    assert stage in RAW_PARAMS
    assert stage in declared or f"{stage}.recipes.${{key}}" in declared or {"params.yaml": None} in declared


@pytest.mark.parametrize("stage", STAGES)
def test_module_is_a_dependency_and_stays_small(stage: str) -> None:
    path = f"stages/{stage}.py"
    assert path in declaration(stage)["deps"]
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 80


def library_imports(path: Path) -> Iterator[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 1:
            # The agent's modules import one another so, for they run on the device without the rest.
            yield f"{package}.{node.module}"
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pocketbert."):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pocketbert."))


# The runner's own modules: every stage needs them, and an edit there changes no output.
FRAMEWORK = {"artifacts", "errors", "params", "process", "provenance", "stage", "storage", "tracking"}


def source_of(name: str) -> Path:
    plain = ROOT / (name.replace(".", "/") + ".py")
    return plain if plain.exists() else ROOT / name.replace(".", "/") / "__init__.py"


@pytest.mark.parametrize("stage", STAGES)
def test_library_modules_that_a_stage_uses_are_dependencies(stage: str) -> None:
    declared = [ROOT / d for d in declaration(stage)["deps"] if d.startswith("pocketbert/")]
    # What a stage starts by its name is declared, and what that imports has to be, too.
    missing, seen, queue = set(), set(), [ROOT / "stages" / f"{stage}.py", *(d for d in declared if d.is_file())]
    while queue:
        for name in library_imports(queue.pop()):
            if name in seen or name.split(".")[1] in FRAMEWORK:
                continue
            seen.add(name)
            source = source_of(name)
            if not any(source == d or d in source.parents for d in declared):
                missing.add(str(source.relative_to(ROOT)))
            queue.append(source)
    assert not missing


def test_params_yaml_writes_out_every_default_key() -> None:
    validated = load_params(ROOT / "params.yaml").model_dump(mode="json", by_alias=True)
    assert set(RAW_PARAMS) == set(validated)
    for section, values in validated.items():
        assert set(RAW_PARAMS[section]) == set(values), section


def test_shipped_profiles_are_valid_and_known() -> None:
    profiles = sorted((ROOT / "profiles").glob("*.yaml"))
    assert profiles
    for path in profiles:
        Params.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))


def test_only_tracking_imports_mlflow_and_only_export_imports_tensorflow() -> None:
    for path in (ROOT / "pocketbert").rglob("*.py"):
        inside = path.relative_to(ROOT / "pocketbert")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.split(".")[0] for name in names}
            assert "mlflow" not in roots or inside.parts[0].startswith("tracking"), path
            assert "tensorflow" not in roots or inside.parts[0] == "export", path
