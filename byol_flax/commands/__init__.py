"""The verbs of the `byol` command, its flags, and the reading of configs."""
