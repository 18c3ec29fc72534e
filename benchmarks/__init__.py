"""Scripts that measure; each prints its figures with the processor and the date."""
