"""Networks: the encoder, its heads, and the BYOL network made of them.

Pure Linen modules; nothing here knows of data, losses or devices.
"""
