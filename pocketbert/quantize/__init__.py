"""Named quantization recipes and calibration."""
