"""LiteRT on the GPU by its C interface, for a precision that its Python interface does not offer: fp16, sums in fp32.

Values are held and multiplied in half precision; products, convolutions and their like add up in fp32: `precision = 3`
in the accelerator's options, kLiteRtDelegatePrecisionFp16WithFp32Accum of litert/c/litert_common.h, LiteRT 2.2 and
later. The Python class CompiledModel sets fp32 or nothing. Of the runtime's wheel and numpy alone.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .engine import Refused, pick_logits
from .litert_log import explain, overheard, read_placement, vulkan_error

# Without the hint a row that takes many seconds is an error, as in litert_gpu.
_OPTIONS = b"precision = 3\nhint_waiting_for_completion = true\n"
_SINCE = (2, 2)
# Of the C headers: accelerators CPU | GPU; the environment's option of the libraries' folder; a string as its value.
_CPU_AND_GPU, _LIBRARY_FOLDER, _STRING = 3, 22, 8
_READ, _WRITE = 0, 1
# LiteRT waits some seconds for a buffer, which a driver in software on a busy machine may exceed (LiteRtStatus).
_TIMED_OUT, _TRIES = 7, 6
# LiteRtElementType.
_DTYPES = {1: "float32", 2: "int32"}


class _Any(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("value", ctypes.c_char_p))


class _Option(ctypes.Structure):
    _fields_ = (("tag", ctypes.c_int), ("value", _Any))


class _TensorType(ctypes.Structure):
    # Element type, rank in seven bits, dimensions [8], strides [8].
    _fields_ = (("words", ctypes.c_int32 * 18),)


class _TimeoutError(RuntimeError):
    pass


class NativeGpuModel:
    """A .tflite file on the GPU like `GpuModel`; operators that the GPU refuses run on the CPU with one thread."""

    def __init__(self, path: Path, total_ops: int) -> None:
        """Load; raises NoGpu, and Refused where LiteRT is too old or cannot compile the file."""
        found = version("ai-edge-litert")
        if tuple(map(int, found.split(".")[:2])) < _SINCE:
            raise Refused(
                f"LiteRT {found} has no fp16 with sums in fp32", "Install ai-edge-litert 2.3, or choose fp16."
            )
        self.name = f"litert {found}"
        with overheard() as said:
            try:
                self._open(path)
            except RuntimeError as error:
                raise explain(path, said()) from error
            self.placement = read_placement(said(), total_ops)

    def run(self, row: Mapping[str, Any]) -> Any:
        """The main output of one row, float32 of the model's own shape; raises Refused like `GpuModel.run`."""
        left = _TRIES
        while True:
            left -= 1
            try:
                return self._run(row)
            except RuntimeError as error:
                if left and isinstance(error, _TimeoutError):
                    # A buffer that was waited for in vain cannot be asked for again.
                    self._bind()
                    continue
                reason = vulkan_error() or str(error)
                raise Refused(
                    f"the GPU failed in mid-run: {reason}", "Update its driver, or run it on the CPU."
                ) from error

    def _run(self, row: Mapping[str, Any]) -> Any:
        import numpy as np

        for name, (buffer, _, dtype) in self._sources.items():
            values = np.ascontiguousarray(row[name], dtype)
            ctypes.memmove(self._lock(buffer, _WRITE), values.ctypes.data, values.nbytes)
            self._call("UnlockTensorBuffer", buffer)
        given, taken = (self._handles(side) for side in (self._sources, self._targets))
        counts = [ctypes.c_size_t(len(side)) for side in (given, taken)]
        self._call("RunCompiledModel", self._model, ctypes.c_size_t(0), counts[0], given, counts[1], taken)
        buffer, shape, _ = self._targets[self._output]
        address = ctypes.cast(self._lock(buffer, _READ), ctypes.POINTER(ctypes.c_float))
        logits = np.ctypeslib.as_array(address, shape=shape).copy()
        self._call("UnlockTensorBuffer", buffer)
        return logits

    def close(self) -> None:
        """Release the model; what else LiteRT holds goes with the process."""
        self._library.LiteRtDestroyCompiledModel(self._model)

    def _open(self, path: Path) -> None:
        libraries = Path(str(importlib.import_module("ai_edge_litert").__file__)).parent
        self._library = ctypes.CDLL(str(libraries / "libLiteRt.so"))
        self._environment, model, options, gpu = (ctypes.c_void_p() for _ in range(4))
        folder = _Option(_LIBRARY_FOLDER, _Any(_STRING, str(libraries).encode()))
        self._call("CreateEnvironment", 1, ctypes.byref(folder), ctypes.byref(self._environment))
        self._call("CreateModelFromFile", self._environment, str(path).encode(), ctypes.byref(model))
        self._call("CreateOptions", ctypes.byref(options))
        self._call("SetOptionsHardwareAccelerators", options, _CPU_AND_GPU)
        # LiteRT keeps both pointers.
        self._payload = ctypes.create_string_buffer(_OPTIONS)
        self._release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
        self._call("CreateOpaqueOptions", b"gpu_options", self._payload, self._release, ctypes.byref(gpu))
        self._call("AddOpaqueOptions", options, gpu)
        self._model, self._signature = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("CreateCompiledModel", self._environment, model, options, ctypes.byref(self._model))
        self._call("GetModelSignature", model, ctypes.c_size_t(0), ctypes.byref(self._signature))
        self._bind()

    def _bind(self) -> None:
        """Make the buffers of the first signature's inputs and outputs."""
        import numpy as np

        self._sources, self._targets = (self._buffers(side) for side in ("Input", "Output"))
        self._output = pick_logits(sorted(self._targets))
        # Dtype and shape by name.
        self.inputs = {name: (np.dtype(dtype), shape) for name, (_, shape, dtype) in self._sources.items()}

    def _buffers(self, side: str) -> dict[str, Any]:
        """A buffer, its shape and dtype by the name of each of the signature's inputs or outputs."""
        signature, count, found = self._signature, ctypes.c_size_t(), {}
        self._call(f"GetNumSignature{side}s", signature, ctypes.byref(count))
        for index in map(ctypes.c_size_t, range(count.value)):
            name, described = ctypes.c_char_p(), _TensorType()
            tensor, needs, buffer = (ctypes.c_void_p() for _ in range(3))
            self._call(f"GetSignature{side}Name", signature, index, ctypes.byref(name))
            self._call(f"GetSignature{side}TensorByIndex", signature, index, ctypes.byref(tensor))
            self._call("GetRankedTensorType", tensor, ctypes.byref(described))
            first = ctypes.c_size_t(0)
            self._call(f"GetCompiledModel{side}BufferRequirements", self._model, first, index, ctypes.byref(needs))
            made = (self._environment, ctypes.byref(described), needs, ctypes.byref(buffer))
            self._call("CreateManagedTensorBufferFromRequirements", *made)
            words, text = described.words, (name.value or b"").decode()
            if words[0] not in _DTYPES:
                raise Refused(f"{text} is neither float32 nor int32", "Export it again, or choose fp16 or fp32.")
            found[text] = (buffer, tuple(words[2 : 2 + (words[1] & 127)]), _DTYPES[words[0]])
        return found

    def _lock(self, buffer: ctypes.c_void_p, mode: int) -> ctypes.c_void_p:
        address = ctypes.c_void_p()
        self._call("LockTensorBuffer", buffer, ctypes.byref(address), mode)
        return address

    @staticmethod
    def _handles(side: Mapping[str, Any]) -> Any:
        return (ctypes.c_void_p * len(side))(*(buffer for buffer, _, _ in side.values()))

    def _call(self, name: str, *arguments: Any) -> None:
        """Call LiteRt<name>; raises RuntimeError with its status."""
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            kind = _TimeoutError if status == _TIMED_OUT else RuntimeError
            raise kind(f"LiteRt{name} ends with status {status}")
