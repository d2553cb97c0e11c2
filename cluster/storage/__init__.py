"""Bytes on a disk or in a bucket: folders, conditional writes, what a store can do, leases.

Nothing here knows what the bytes mean: no images, no checkpoints, no tensors.
"""
