"""The foreign files of tests/comparison serve here too."""

from tests.comparison.conftest import foreign_tflite, rows_csv

__all__ = ["foreign_tflite", "rows_csv"]
