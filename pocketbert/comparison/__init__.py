"""Two model files on the same rows: a room of its own, so that an edit here makes no stage stale."""
