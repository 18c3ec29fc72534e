"""What all training shares: batches, the trainer, its checkpoints, its guard against NaN and its curves."""
