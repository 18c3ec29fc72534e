"""torch to ONNX and, by weight transplant, to TensorFlow Lite."""
