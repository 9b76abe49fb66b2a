"""Weights of other formats: read into our trees, and written from them.

`foreign` says what is read, `opening` tells the formats apart. Nothing in a
file is ever executed, and no array is read before its shape was found to fit.
"""
