#!/bin/sh
# Tells Ray that this node is about to be taken away, so that the run moves its stages, or stops at a checkpoint.
# A preStop hook; it ends at once where Ray is not running any more.
set -eu
seconds="${1:-60}"
node="$(python -c 'import ray
ray.init(address="auto", logging_level="error", log_to_driver=False)
print(ray.get_runtime_context().get_node_id())')" || exit 0
ray drain-node --address "${RAY_ADDRESS:-$FQ_RAY_IP:6379}" --node-id "$node" --reason DRAIN_NODE_REASON_PREEMPTION \
    --reason-message "the pod is being deleted" --deadline-remaining-seconds "$seconds" || exit 0
