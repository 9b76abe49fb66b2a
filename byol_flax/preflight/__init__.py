"""Finds out what a run would take on a TPU slice, without the slice."""
