"""Bootstrap Your Own Latent in JAX and Flax.

`main` is the `byol` command, `commands` has one file for each of its verbs. The
rooms below it are listed from the lowest up in `tests/test_layering.py`.
"""
