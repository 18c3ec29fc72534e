"""What a model file holds, read without running it: a room of its own, so that an edit here makes no stage stale."""
