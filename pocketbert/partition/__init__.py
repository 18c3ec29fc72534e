"""What a .tflite file needs in memory, and how it is cut into parts that are run in turn where it does not fit."""
