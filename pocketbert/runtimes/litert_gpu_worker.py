"""One GPU run: `python -m pocketbert.runtimes.litert_gpu_worker MODEL WORK_FOLDER fp32|fp16`."""

import os
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.gpu_options import GpuOptions
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.options import Options

from pocketbert.process import die_with_parent
from pocketbert.runtimes.litert_gpu import INPUTS_FILE, OUTPUTS_FILE


def run(model_path: str, work: Path, precision: str) -> None:
    """Run every row of inputs.npz; write the first output of each to outputs.npz."""
    options = Options(
        hardware_accelerators=HardwareAccelerator.GPU | HardwareAccelerator.CPU,
        gpu_options=GpuOptions(enforce_f32=precision == "fp32"),
    )
    model = CompiledModel.from_file(model_path, options=options)
    signature = next(iter(model.get_signature_list()))
    inputs, outputs = model.get_input_tensor_details(signature), model.get_output_tensor_details(signature)
    output = "logits" if "logits" in outputs else next(iter(outputs))
    shape = tuple(outputs[output]["shape"])
    sources = {name: model.create_input_buffer_by_name(signature, name) for name in inputs}
    targets = {name: model.create_output_buffer_by_name(signature, name) for name in outputs}
    results = []
    with np.load(work / INPUTS_FILE, allow_pickle=False) as rows:
        for index in range(len(rows[next(iter(inputs))])):
            for name, buffer in sources.items():
                buffer.write(np.ascontiguousarray(rows[name][index : index + 1]))
            model.run_by_name(signature, sources, targets)
            results.append(targets[output].read(int(np.prod(shape)), np.float32).reshape(shape))
    np.savez(work / OUTPUTS_FILE, allow_pickle=False, outputs=np.concatenate(results))


if __name__ == "__main__":
    die_with_parent()
    run(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    sys.stdout.flush()
    sys.stderr.flush()
    # LiteRT's destructors are known to crash at interpreter exit; the answer is on disk.
    os._exit(0)
