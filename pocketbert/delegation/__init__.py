"""Which operators of a .tflite file a GPU takes, by rule and by the runtime's answer, and whether it computes right."""
