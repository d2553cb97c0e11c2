"""Calls that fail on their way: Ray loses requests or answers between the coordinator and the stages."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.run.checkpoints import find_checkpoint
from tests.campaigns.chaos.drivers import Driver
from tests.campaigns.chaos.rows import Row
from tests.campaigns.chaos.stages import quiet_of
from tests.campaigns.chaos.trainings import lost_s, pictures

STEPS = 120
FAILURES_PER_RUN = 20
LOST_PERCENT = ((3, 3), (25, 25), (0, 5), (5, 0))
"""Requests and answers that are lost, in per cent of calls, until FAILURES_PER_RUN have been."""


def faults(requests: int, answers: int) -> str:
    """RAY_testing_rpc_failure."""
    what = {
        "num_failures": FAILURES_PER_RUN,
        "req_failure_prob": requests,
        "resp_failure_prob": answers,
        "in_flight_failure_prob": 0,
    }
    return json.dumps({"CoreWorkerService.grpc_client.PushTask": what})


def calls_case(folder: Path, moments: int) -> Row:
    """Runs with up to FAILURES_PER_RUN faults each, in every way there is, until ``moments`` of them were noticed."""
    row, run = Row("calls"), 0
    while (row.moments < moments or run < min(moments, len(LOST_PERCENT))) and run < 2 * len(LOST_PERCENT):
        requests, answers = LOST_PERCENT[run % len(LOST_PERCENT)]
        settings = {"run": folder / f"calls{run}", "data": pictures(folder), "max_steps": STEPS, "checkpoint_every": 40}
        driver = Driver(settings, RAY_testing_rpc_failure=faults(requests, answers))
        code = driver.exit_code()
        run += 1
        if code != 0:
            row.wrong.append(f"{requests}+{answers} %: exit code {code}, step {driver.step}: {driver.said('error')}")
            row.runs += 1
            driver.clean()
            continue
        row.compare(find_checkpoint(str(settings["run"])).digest(), quiet_of(folder).digest(STEPS))
        recovered = [at_s for at_s, text in driver.lines if text.startswith("recovered")]
        row.moments += len(recovered)
        steps = [at_s for at_s, _ in driver.steps_at_s()]
        row.lost_s += [lost_s(steps, at_s - 1e-3, at_s + 1e-3) for at_s in recovered]
        driver.clean()
    row.notes.append(f"{run} runs of {STEPS} steps, up to {FAILURES_PER_RUN} lost calls in each process")
    return row
