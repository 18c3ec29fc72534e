"""The lowest ONNX Runtime that knows an ONNX opset, and which operators are its own.

The facts are those of onnxruntime.ai/docs/reference/compatibility.html (ONNX opset support; in the repository
github.com/microsoft/onnxruntime docs/reference/compatibility.md, commit 109c0ba, whose table ends at runtime 1.20). A
runtime runs every opset from 7 up to its own.
"""

from collections.abc import Iterator

from pocketbert.inspection.graph import ModelFile, OpUse
from pocketbert.inspection.op_versions import OpNeed, Version, parse_version

# The newest opset of a release -> the first release that knows it.
_LOWEST = {
    11: "1.0", 12: "1.3", 13: "1.6", 14: "1.8", 15: "1.9", 16: "1.11", 17: "1.12", 18: "1.14", 19: "1.15", 20: "1.17",
    21: "1.18",
}  # fmt: skip
# Operators that every build of ONNX Runtime has beside ONNX's own; no other runtime has them.
CONTRIB = "com.microsoft"
# The name under which the operator set itself stands among the needs of a file.
OPSET = "opset"


def onnx_needs(model: ModelFile, target: Version | None) -> Iterator[OpNeed]:
    """What an ONNX file asks of ONNX Runtime: its opset, and the operators of other domains."""
    yield _opset_need(model.opsets.get("", 0), target)
    for use in model.ops:
        if use.custom and is_contrib(use):
            yield OpNeed(use, None, None, "ONNX Runtime's own operator: no other runtime has it, nor an early release")
        elif use.custom:
            too_old = None if target is None else True
            yield OpNeed(use, None, too_old, "custom op: the runtime must register its kernel")


def is_contrib(use: OpUse) -> bool:
    """Whether an operator is one of ONNX Runtime's own."""
    return use.op.startswith(f"{CONTRIB}.")


def _opset_need(opset: int, target: Version | None) -> OpNeed:
    use = OpUse(OPSET, opset, 1)
    newest = max(_LOWEST)
    if opset <= newest:
        runtime = _LOWEST[max(opset, min(_LOWEST))]
        return OpNeed(use, runtime, None if target is None else target < parse_version(runtime))
    too_old = True if target is not None and target < parse_version(_LOWEST[newest]) else None
    note = f"opset {opset} is newer than the table, which ends at {newest} (runtime {_LOWEST[newest]})"
    return OpNeed(use, None, too_old, note)
