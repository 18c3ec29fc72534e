"""The tiny models of tests/runtimes serve here too."""

from tests.runtimes.conftest import onnx, quantized, student, tflite, toy_split

__all__ = ["onnx", "quantized", "student", "tflite", "toy_split"]
