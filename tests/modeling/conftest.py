# Before transformers, which would import TensorFlow unless pocketbert has told it not to.
import pocketbert  # noqa: F401
