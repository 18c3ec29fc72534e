"""What runs on the device: supervises a benchmark, measures in fresh processes, and reads the machine's sensors.

The host packs this folder into one file (a zipapp, see `pocketbert.devices.package`) and pushes it. It needs Python 3.9
or newer and nothing else; only `engines` and `measure` import numpy and a runtime, in the environment that the host
builds there. That is why imports are relative here, and why nothing of the rest of pocketbert is imported, but by the
engine `pocketbert`.
"""
