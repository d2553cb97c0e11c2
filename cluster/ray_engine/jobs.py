"""Jobs of a Ray cluster over HTTP: submitted, followed to their true end, stopped. Wraps Ray's JobSubmissionClient.

With RAY_AUTH_MODE=token the client sends the token of RAY_AUTH_TOKEN, of the file RAY_AUTH_TOKEN_PATH or of
~/.ray/auth_token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
from aiohttp import ClientError
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient
from requests.exceptions import RequestException
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from freqgan.errors import InputError, RunError, first_line

PATIENCE_S = 120.0
"""For which a dashboard may not answer before a job that is followed is given up."""
POLL_S = 1.0
ANSWER_S = 10.0
"""For which a dashboard may be silent when it is asked for the first time."""


@dataclass(frozen=True)
class Job:
    """One job as the cluster tells of it.

    ``exit_code`` is that of its driver; None while it runs, and where there was none to give one.
    """

    name: str
    status: str
    exit_code: int | None
    message: str
    metadata: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return bool(JobStatus(self.status).is_terminal())


class Jobs:
    """The jobs of one cluster.

    Args:
        address: of its dashboard, http://host:8265.

    Raises:
        InputError: nothing answers there, or the token is wrong.

    """

    def __init__(self, address: str) -> None:
        self.address = address
        if not address.startswith(("http://", "https://")):
            raise InputError(f"--address {address}: give that of the cluster's dashboard, for example http://head:8265")
        try:
            # Ray's client waits for ever for what listens and says nothing.
            if requests.get(f"{address.rstrip('/')}/api/version", timeout=ANSWER_S).status_code == HTTPStatus.NOT_FOUND:
                raise InputError(f"what answers at {address} is no Ray dashboard; check the address")
            self._client = JobSubmissionClient(address)
        except (ConnectionError, RequestException) as error:
            raise InputError(
                f"no Ray dashboard answers at {address}; check the address, or forward the port: "
                "kubectl port-forward service/<cluster>-head-svc 8265"
            ) from error
        except (RuntimeError, RayError) as error:
            raise _refused(address, error) from error

    def submit(
        self,
        entrypoint: str,
        folder: Path,
        name: str,
        env: Mapping[str, str],
        run: str,
        stages: Sequence[str] = (),
    ) -> str:
        """Start ``entrypoint`` in a copy of ``folder`` on the cluster; the job's name.

        ``run`` and ``stages``, those that it trains where these are not all of the run, are told to who lists jobs.
        """
        environment: dict[str, Any] = {"working_dir": str(folder), "env_vars": dict(env)}
        try:
            return str(
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=name,
                    runtime_env=environment,
                    metadata={"freqgan_run": run, "freqgan_only": ",".join(stages)},
                )
            )
        except (RuntimeError, RayError, RequestException) as error:
            raise _refused(self.address, error) from error

    def job(self, name: str) -> Job:
        """As it is now; RunError where the cluster does not know it or does not answer for a while."""
        found: Job = self._patiently(lambda: _job(self._client.get_job_info(name)))
        return found

    def jobs(self) -> list[Job]:
        """Return all that were submitted to the cluster, the newest first."""
        found = self._patiently(self._client.list_jobs)
        submitted = [one for one in found if one.submission_id]
        return [_job(one) for one in sorted(submitted, key=lambda one: one.start_time or 0, reverse=True)]

    def stop(self, name: str) -> None:
        """Ask the job to end: its driver gets SIGTERM, and with it the time for a checkpoint."""
        self._patiently(lambda: self._client.stop_job(name))

    def follow(self, name: str, write: Callable[[str], object]) -> Job:
        """Write the job's log until its end, over lost connections, every part once; the job as it ended."""
        written = 0
        while True:
            written += self._tail(name, written, write)
            job = self.job(name)
            if job.has_ended:
                break
            time.sleep(POLL_S)
        # The stream may end before the last lines are in the file.
        whole = self._patiently(lambda: str(self._client.get_job_logs(name)))
        write(whole[written:])
        return job

    def _tail(self, name: str, skip: int, write: Callable[[str], object]) -> int:
        """Write what comes after ``skip`` characters, until the stream ends or breaks; how many characters."""
        written = 0

        async def run() -> None:
            nonlocal written
            passed = 0
            async for text in self._client.tail_job_logs(name):
                new = text[max(0, skip - passed) :]
                passed += len(text)
                written += len(new)
                if new:
                    write(new)

        # A stream that breaks is taken up again, until the job has ended.
        with suppress(RuntimeError, RayError, ClientError, OSError):
            asyncio.run(run())
        return written

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """Return the answer, asked for again while the dashboard cannot be reached."""
        retrying = Retrying(
            retry=retry_if_exception_type((ConnectionError, RequestException)),
            stop=stop_after_delay(PATIENCE_S),
            wait=wait_random_exponential(multiplier=0.5, max=5),
            reraise=True,
        )
        try:
            return retrying(ask)
        except (ConnectionError, RequestException) as error:
            raise RunError(f"{self.address} has not answered for {PATIENCE_S:g} s: {error}") from error
        except (RuntimeError, RayError) as error:
            raise RunError(f"{self.address}: {first_line(error)}") from error


def _job(details: Any) -> Job:
    return Job(
        details.submission_id or details.job_id or "",
        str(details.status.value if hasattr(details.status, "value") else details.status),
        details.driver_exit_code,
        details.message or "",
        details.metadata or {},
    )


def _refused(address: str, error: Exception) -> InputError:
    text = str(error)
    if any(word in text for word in ("401", "403", "Unauthorized", "Forbidden", "uthentication")):
        return InputError(
            f"{address} refuses the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to "
            "those of the cluster"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = f"; {lines[-1]}" if len(lines) > 1 else ""  # of a server's traceback the last line says what is wrong
    return InputError(f"{address}: {first_line(error)}{cause}")
