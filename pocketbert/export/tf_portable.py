"""GELU for GPU delegates that do not have it (TensorFlow Lite 2.x), made of what they have."""

import math
from collections.abc import Callable

import tensorflow as tf


def _gelu_by_exp(x: tf.Tensor) -> tf.Tensor:
    """GELU with erf by Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: |error of erf| < 1.5e-7."""
    size = tf.abs(x) * (1.0 / math.sqrt(2.0))
    t = 1.0 / (1.0 + 0.3275911 * size)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    # x (1 + erf(x / sqrt(2))) / 2; erf is odd, so x erf(x) is |x| erf(|x|).
    return 0.5 * (x + tf.abs(x) * (1.0 - series * tf.exp(-(size * size))))


def _gelu_by_tanh(x: tf.Tensor) -> tf.Tensor:
    """GELU's approximation by tanh (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


PORTABLE_ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "gelu": _gelu_by_exp,
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), _gelu_by_tanh),
}
