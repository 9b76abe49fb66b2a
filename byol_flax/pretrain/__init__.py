"""The method: from a config to a trained encoder.

`train` tells the story from top to bottom, `build` turns a config into
functions, and `train_step` is one update.
"""
