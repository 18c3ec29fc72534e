"""A model in parts (docs/memory.md) on LiteRT: each is loaded, run over all rows and released before the next one."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Array by name, [rows, *shape]: not every tensor between parts has a batch axis of its own.
Values = dict[str, Any]


def run_in_turn(
    parts: Sequence[Mapping[str, Any]],
    paths: Sequence[str],
    values: Values,
    output: str,
    hold: Callable[..., Any],
    threads: int,
) -> Any:
    """The array of `output` for the inputs `values`; raises what LiteRT raises.

    `parts` are the entries of parts.json, whose files lie at `paths`; `hold(shape, dtype)` makes room for what a part
    hands over.
    """
    rows = len(next(iter(values.values())))
    for number, part in enumerate(parts):
        made = {t["name"]: hold((rows, *t["shape"]), t["dtype"]) for t in part["outputs"]}
        values = {**values, **made}
        _run(paths[number], values, threads)
        # Not before the interpreter is gone.
        give_back_memory()
        wanted = {name for later in parts[number + 1 :] for name in later["inputs"]} | {output}
        values = {name: held for name, held in values.items() if name in wanted}
    return values[output]


def _run(path: str, values: Values, threads: int) -> None:
    """Load a part and run it over all rows of `values`, from its inputs into its outputs."""
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(
        model_path=path, num_threads=threads
    )
    # Once and for good: a signature's runner resizes and allocates before every run, after which XNNPACK refuses some
    # graphs ("failed to reshape runtime", ai-edge-litert 2.3.0).
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    for row in range(len(values[inputs[0]["name"]])):
        for tensor in inputs:
            interpreter.set_tensor(tensor["index"], values[tensor["name"]][row])
        interpreter.invoke()
        for tensor in outputs:
            values[tensor["name"]][row] = interpreter.get_tensor(tensor["index"])


def give_back_memory() -> None:
    """Return freed heap to the system: glibc keeps it otherwise, and the next part's would come on top."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
