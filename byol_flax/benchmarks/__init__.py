"""Measures what a step, the input and a save take on the machine at hand."""
