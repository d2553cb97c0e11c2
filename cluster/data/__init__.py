"""From an object to a batch of pixels: shards, their index, packing, decoding, the order of images, damaged ones.

It runs in processes that only read, so nothing here imports torch or Ray.
"""
