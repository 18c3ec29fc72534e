"""Load, clean, split, augment and tokenize labelled text."""
