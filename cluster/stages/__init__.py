"""One stage of a model in one process: its host, its snapshots, the replicas that share its batches.

The only home of torch.distributed. Nothing here knows which other stages there are, or what executes them.
"""
