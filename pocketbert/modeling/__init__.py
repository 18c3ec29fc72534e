"""Encoders, heads, teachers, students and checkpoints."""
