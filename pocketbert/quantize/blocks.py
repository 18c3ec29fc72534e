"""Blocks of weights that share a scale, packed as ONNX Runtime's MatMulNBits and GatherBlockQuantized store them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Blocks:
    """levels uint8 [..., blocks, size] in 0 .. 2^bits - 1; value = (level - zero) * scale, scale [..., blocks]."""

    levels: NDArray[np.uint8]
    scale: NDArray[np.float32]
    # The level of 0 for each block; None: 2^(bits - 1) for all.
    zero: NDArray[np.uint8] | None


def quantize_blocks(values: NDArray[np.float32], bits: int, symmetric: bool) -> Blocks:
    """Quantize float32 [..., blocks, size], each block by itself.

    Symmetric: the value furthest from 0 becomes level 0, so that all levels are used (the scale carries its sign).
    """
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    if symmetric:
        furthest = np.take_along_axis(values, np.abs(values).argmax(axis=-1, keepdims=True), axis=-1)
        scale, zero = furthest / -middle, np.full_like(furthest, middle)
    else:
        low, high = np.minimum(values.min(-1, keepdims=True), 0), np.maximum(values.max(-1, keepdims=True), 0)
        scale = (high - low) / top
        zero = np.rint(-low / np.where(scale > 0, scale, 1))
    scale = np.where(scale != 0, scale, 1).astype(np.float32)
    levels = np.clip(np.rint(values / scale) + zero, 0, top).astype(np.uint8)
    return Blocks(levels, scale[..., 0], None if symmetric else zero[..., 0].astype(np.uint8))


def pack(levels: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Two 4-bit levels a byte along the last axis, the first one in the low half; an odd last one alone."""
    if bits == 8:
        return levels
    if levels.shape[-1] % 2:
        levels = np.pad(levels, [(0, 0)] * (levels.ndim - 1) + [(0, 1)])
    return np.bitwise_or(levels[..., ::2], np.left_shift(levels[..., 1::2], 4), dtype=np.uint8)
