"""`pocketbert scan`: which tensors of a model file half precision cannot hold."""
