"""From images on disk to batches of NumPy arrays; nothing here knows JAX.

`sources` opens a data set, `augment` makes two views of an image, `pipeline`
fixes which example comes when, `loading` divides the work among processes.
"""
