"""Turns any images into shards that training and TFDS read (`byol prepare`)."""
