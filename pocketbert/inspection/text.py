"""An inspection as text for people."""

from collections.abc import Iterator, Mapping

from pocketbert.inspection.graph import OpUse
from pocketbert.inspection.inspect import Inspection
from pocketbert.inspection.op_versions import OpNeed
from pocketbert.inspection.opset_versions import OPSET, is_contrib
from pocketbert.runtimes.base import TensorSpec


def as_text(inspection: Inspection) -> str:
    """The whole report, sections parted by blank lines, findings last."""
    sections = [_head, _tensors, _ops, _weights, _lookups, _findings]
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section(inspection))))


def _head(inspection: Inspection) -> Iterator[str]:
    model = inspection.model
    yield f"{inspection.path}: {model.format}, {model.size_bytes:,} bytes"
    for name, value in model.facts.items():
        yield f"  {name.replace('_', ' ')}: {value}"


def _tensors(inspection: Inspection) -> Iterator[str]:
    model = inspection.model
    for role, specs in (("input", model.inputs), ("output", model.outputs)):
        for position, spec in enumerate(specs):
            yield f"{role} {position}: {_spec(spec)}"
    for signature in model.signatures:
        ends = " -> ".join(", ".join(map(_spec, specs)) for specs in (signature.inputs, signature.outputs))
        yield f"signature {signature.name}: {ends}"
    if model.format == "tflite" and not model.signatures:
        yield "signatures: none (inputs are found by index)"


def _spec(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}[{', '.join('?' if n is None else str(n) for n in spec.shape)}]"


def _ops(inspection: Inspection) -> Iterator[str]:
    model = inspection.model
    if not model.ops:
        yield "ops: a torch folder of this architecture is not counted"
        return
    total = sum(use.count for use in model.ops)
    yield f"{'modules' if model.format == 'torch' else 'ops'}: {total} of {len(model.ops)} kinds"
    width = max(len(use.op) for use in model.ops)
    if model.format != "tflite":
        yield from (f"  {use.op:<{width}} {use.count:>5}{_mark(use)}" for use in model.ops)
        yield from (f"  {_asked(need)}: lowest ONNX Runtime {_runtime(need)}" for need in inspection.needs[:1])
        return
    yield f"  {'operator':<{width}} {'count':>5} {'version':>7}  lowest TFLite runtime"
    for need in inspection.needs:
        yield f"  {need.use.op:<{width}} {need.use.count:>5} {need.use.version:>7}  {_runtime(need)}"
    yield f"  lowest runtime of all operators in the table: {inspection.lowest_runtime or 'unknown'}"


def _mark(use: OpUse) -> str:
    return "" if not use.custom else "  ONNX Runtime's own" if is_contrib(use) else "  custom op"


def _asked(need: OpNeed) -> str:
    """An operator and its version, or the opset."""
    version = "" if need.use.version is None else f" {'' if need.use.op == OPSET else 'v'}{need.use.version}"
    return f"{need.use.op}{version}"


def _runtime(need: OpNeed) -> str:
    stated = "" if need.use.stated is None else f" (the file states version {need.use.stated}, its types ask for more)"
    return f"{need.runtime or f'unknown ({need.note})'}{stated}"


def _weights(inspection: Inspection) -> Iterator[str]:
    for title, sizes in (("part", inspection.bytes_by_part), ("dtype", inspection.bytes_by_dtype)):
        yield f"bytes by {title}: {_shares(sizes)}"


def _shares(sizes: Mapping[str, int]) -> str:
    total = sum(sizes.values()) or 1
    return ", ".join(f"{name} {size:,} ({size / total:.1%})" for name, size in sizes.items() if size) or "none"


def _lookups(inspection: Inspection) -> Iterator[str]:
    for lookup in inspection.lookups:
        yield f"lookup {lookup.node} in {lookup.table} ({lookup.rows} rows) by {lookup.index or 'computed indices'}:"
        yield f"  {lookup.verdict}: {lookup.reason}"


def _findings(inspection: Inspection) -> Iterator[str]:
    for use in inspection.model.ops:
        if use.custom and not is_contrib(use):
            yield f"FINDING: {_custom(use)}"
    for use in inspection.random:
        yield f"FINDING: {use.op} ({use.count} times) draws random numbers: was it exported in training mode?"
    for need in inspection.refused:
        if not need.use.custom:
            reason = f"needs {need.runtime}" if need.runtime else need.note
            yield f"FINDING: runtime {inspection.target} is too old for {_asked(need)}: {reason}"
    unknown = [
        need
        for need in inspection.needs
        if need.runtime is None and need.too_old is None and (not need.use.custom or is_contrib(need.use))
    ]
    for need in unknown if inspection.target else ():
        yield f"UNKNOWN: {_asked(need)} on runtime {inspection.target}: {need.note}"
    for lookup in inspection.out_of_bounds:
        yield f"FINDING: {lookup.node} can run out of bounds: {lookup.reason}"
    if inspection.target and not inspection.refused and not unknown:
        yield f"runtime {inspection.target} knows every operator"


def _custom(use: OpUse) -> str:
    return f"custom op {use.op} ({use.count} times): it runs only where its kernel is registered"
