"""Layers and distributions, without opinions: no tasks, no batches, no losses of the method."""
