"""Which form of a TFLite graph is fastest on a device, among forms that compute the same: `pocketbert tune`."""
