"""Prefect flows, and the servers that they run on. No ML imports: flows start stages."""
