"""From an object in storage to a batch of pixels.

``shards`` and ``shard_index`` know which images a tar holds, ``sampler`` and ``exclusion_list`` in which order they
come, ``shard_store`` fetches and checks them, ``decoding`` decodes, ``reader`` gives batches, ``packing`` packs,
``quarantine`` lists damaged images. Processes that only read use it, so nothing here imports torch or Ray.
"""
