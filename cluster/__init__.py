"""Machines: shards, storage, actors, executors, the coordinator and its checkpoints."""
