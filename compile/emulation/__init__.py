"""Run a bundle that is for another processor, or for a GPU that this machine does not have."""
