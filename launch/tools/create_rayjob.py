"""``python -m launch.tools.create_rayjob TEMPLATE --namespace NS``: a copy of a suspended RayJob, not suspended.

What a CronJob runs where KubeRay has no RayCronJob. It asks the API server with the pod's own service account.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer

from freqgan.errors import FreqganError, InputError, RunError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GROUP = "/apis/ray.io/v1/namespaces"
TIMEOUT_S = 30
KEPT_METADATA = ("labels", "annotations")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def copy_of(template: dict[str, Any]) -> dict[str, Any]:
    """Return a RayJob to create: that of ``template``, not suspended, with a name that the server makes."""
    metadata = {key: dict(template["metadata"].get(key) or {}) for key in KEPT_METADATA}
    metadata["annotations"].pop(LAST_APPLIED, None)
    name = template["metadata"]["name"]
    spec = {key: value for key, value in template["spec"].items() if key not in ("suspend", "jobId")}
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {"generateName": f"{name}-", **{key: value for key, value in metadata.items() if value}},
        "spec": spec,
    }


def create(template: str, namespace: str, server: str, account: Path = ACCOUNT) -> str:
    """Return the name of the RayJob that was created.

    Raises:
        InputError: no such template, or this account may not do that.
        RunError: the server cannot be reached, or refuses for another reason.

    """
    url = f"{server}{GROUP}/{namespace}/rayjobs"
    cronjob = _ask(f"{url}/{template}", None, account)
    job = _ask(url, copy_of(cronjob), account)
    return str(job["metadata"]["name"])


def _ask(url: str, body: dict[str, Any] | None, account: Path) -> dict[str, Any]:
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if (account / "token").exists():
        headers["Authorization"] = f"Bearer {(account / 'token').read_text().strip()}"
    certificate = account / "ca.crt"
    context = ssl.create_default_context(cafile=str(certificate)) if certificate.exists() else None
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as got:
            answer: dict[str, Any] = json.loads(got.read())
            return answer
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")[:500]
        kind = InputError if error.code in (401, 403, 404) else RunError
        raise kind(f"{url} answers {error.code}: {text}; see the Role freqgan-scheduler and the name") from error
    except (urllib.error.URLError, OSError) as error:
        raise RunError(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from error


def main(
    template: Annotated[str, typer.Argument(help="name of a suspended RayJob")],
    namespace: Annotated[str, typer.Option(help="in which it is")],
) -> None:
    """Start a copy of a suspended RayJob, from inside a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        if host is None:
            raise InputError("this is no pod: KUBERNETES_SERVICE_HOST is not set; use kubectl create instead")
        print(f"created {create(template, namespace, f'https://{host}:{port}')}")
    except FreqganError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(main)
