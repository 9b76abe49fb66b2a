"""Faster R-CNN on an encoder (paper.md §7.2), in small parts.

Every part has static shapes: what an image lacks is filled up and masked.
`network` puts the parts together.
"""
