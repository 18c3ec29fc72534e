"""pocketbert: BERT-family text classifiers, made small, proven equal and measured on the device."""

import os

__version__ = "0.1.0"

# transformers probes for TensorFlow (seconds and log noise) unless told not to; only export_tflite needs
# TensorFlow, and it imports it itself.
os.environ.setdefault("USE_TF", "0")
os.environ.setdefault("USE_FLAX", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Stages fork workers after tokenizing; the Rust thread pool would warn and fall back anyway.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
