"""The trainer, fine-tuning and distillation."""
