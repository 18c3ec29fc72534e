"""What an ncnn graph of ours is fed: everything that depends on the mask alone is prepared by the host."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pocketbert.params.section import Section

PARAM_FILE, MODEL_FILE, GRAPH_FILE = "model.ncnn.param", "model.ncnn.bin", "graph.json"


class NcnnInputs(Section):
    """graph.json beside the model: what its inputs need to be made."""

    sequence_length: int = Field(ge=1)
    mask_value: float
    pooling: Literal["mean", "cls"]
    token_types: bool

    def tensors(self, row: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """The graph's inputs in order (in0, in1, ...) for one row of `input_ids`, `attention_mask`, [1, S] each."""
        ids, mask = np.asarray(row["input_ids"]), np.asarray(row["attention_mask"], np.float32)
        length = mask.shape[1]
        additive = (1.0 - mask) * np.float32(self.mask_value)
        if self.pooling == "mean":
            weights = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1.0)
        else:
            weights = np.eye(1, length, dtype=np.float32) * mask[:, :1]
        values = [
            ids.astype(np.int32),
            # A row for each query: ncnn's SDPA takes a single one too, and computes something else.
            np.ascontiguousarray(np.broadcast_to(additive[:, None, None, :], (1, 1, length, length)), np.float32),
            weights.astype(np.float32),
        ]
        if self.token_types:
            values.append(np.asarray(row.get("token_type_ids", np.zeros_like(ids))).astype(np.int32))
        return {f"in{index}": value for index, value in enumerate(values)}
