"""Images per second over numbers of devices, for each way to train: apart, as a pipeline, with all networks everywhere.

The batch grows with the devices, so that every stage has that of the settings on a device of its own. Each way may
leave devices out, where it is faster without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from cluster.planning.devices import Device
from cluster.planning.free_plan import ComponentRates, image_bytes, sharing_of
from cluster.planning.offers import by_type
from cluster.planning.planner import best_plan
from cluster.planning.schedule import schedule
from cluster.planning.simulation import Conditions, simulate
from cluster.planning.stage_cost import StageCost
from cluster.planning.traffic import traffic
from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from freqgan.model.components import chosen_components

PER_NODE = 8
SIMULATED_TASKS = 40_000
FEWEST_STEPS, MOST_STEPS = 60, 400


def nodes_of(device: Device, count: int) -> list[Device]:
    """Return ``count`` devices like ``device``, 8 in a node."""
    return [
        Device(f"n{i // PER_NODE + 1}", i % PER_NODE, device.accelerator, device.speed, device.memory_bytes)
        for i in range(count)
    ]


def grown(settings: RunSettings, stages: int, devices: int) -> RunSettings:
    """Return ``settings`` with a batch that grows with the devices, and as many steps as before."""
    factor = max(1, devices // stages)
    own = {name: factor * images for name, images in settings.stage_images.items()}
    changes = {"batch": factor * settings.batch, "images": factor * settings.images, "stage_images": own}
    return settings.model_copy(update=changes)


def free_images_per_s(
    settings: RunSettings,
    costs: Mapping[str, StageCost],
    parameters: Mapping[str, int],
    devices: Sequence[Device],
    conditions: Conditions,
) -> float:
    """Return the images that a run at a free pace sees over its whole time; 0 where a component does not fit."""
    offers = by_type("here", devices)
    try:
        jobs = ComponentRates(settings, costs, parameters, conditions).jobs(offers)
    except InputError:
        return 0.0
    images = max(part.images for part in chosen_components(settings))
    return images / schedule(jobs, offers).end_s


def pipeline_images_per_s(
    settings: RunSettings,
    costs: Mapping[str, StageCost],
    parameters: Mapping[str, int],
    devices: Sequence[Device],
    conditions: Conditions,
) -> float:
    """Return images a second of stages that are at the same step but for a window, by the simulation.

    0 where they do not fit into the memory of the devices.
    """
    tried = dict.fromkeys([len(devices), min(PER_NODE, len(devices))])  # links may cost more than other nodes give
    rates = [0.0]
    for count in tried:
        with suppress(InputError):  # they do not fit
            rates.append(_simulated(settings, costs, parameters, devices[:count], conditions))
    return max(rates)


def _simulated(
    settings: RunSettings,
    costs: Mapping[str, StageCost],
    parameters: Mapping[str, int],
    devices: Sequence[Device],
    conditions: Conditions,
) -> float:
    link = conditions.link_bytes_per_s
    plan = best_plan(settings, list(costs.values()), devices, parameters, link)
    tasks = len(plan.replicas) * settings.plan.cycles
    steps = max(FEWEST_STEPS, min(MOST_STEPS, SIMULATED_TASKS // tasks))
    outcome = simulate(settings, plan, costs, conditions, steps=steps)
    sent_bytes = max(traffic(settings, plan, parameters).by_node.values())
    read_bytes = settings.batch * image_bytes(settings)  # by the node that reads for all
    return min(outcome.images_per_s, settings.batch * link / max(sent_bytes, read_bytes))


def data_parallel_images_per_s(
    settings: RunSettings,
    costs: Mapping[str, StageCost],
    parameters: Mapping[str, int],
    devices: Sequence[Device],
    conditions: Conditions,
) -> float:
    """Return images a second where every device has all networks and a part of the batch; 0 where they do not fit."""
    sharing = sharing_of(settings, costs, parameters, conditions)
    counts = [2**i for i in range(len(devices).bit_length()) if 2**i < len(devices)] + [len(devices)]
    steps = [sharing.step_s(devices[:count]) for count in counts if sharing.fits(devices[:count])]
    return settings.batch / min(steps) if steps else 0.0
