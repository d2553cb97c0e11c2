"""From an object in storage to a batch of pixels.

``shards`` and ``shard_index`` know which images a tar holds, ``sampler`` and ``skip_list`` in which order they come,
``reader`` fetches, checks and decodes them, ``packing`` writes shards, ``quarantine`` lists damaged images. It runs in
processes that only read, so nothing here imports torch or Ray.
"""
