"""The verbs of the `byol` command, and the words it understands."""
