"""From any images to shards that training and TFDS read (`byol prepare`)."""
