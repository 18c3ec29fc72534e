"""Comparators and proofs that two models are the same model."""
