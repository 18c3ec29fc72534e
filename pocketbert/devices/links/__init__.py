"""Transports under a device session: local, SSH, ADB, and a scripted fake for tests."""
