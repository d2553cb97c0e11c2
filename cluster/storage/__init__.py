"""Bytes on a disk or in a bucket, behind one interface.

``folder`` reads and writes both, ``s3_probe`` finds out what a store can do, ``lease`` lets one process write at a
time, ``errors`` puts faults of disks and networks into words. Nothing here knows what the bytes mean: no images, no
checkpoints, no tensors.
"""
