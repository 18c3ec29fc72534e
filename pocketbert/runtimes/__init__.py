"""One small interface over torch, ONNX Runtime and LiteRT."""
