"""Kubernetes manifests of this repository, as tests run what they say."""

from __future__ import annotations

from typing import Any

import yaml

from tests.support.commands import ROOT


def manifest(name: str) -> dict[str, Any]:
    """Returns the manifest in the file ``name`` of k8s/base."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "k8s" / "base" / name).read_text())
    return loaded


def head_container(job: dict[str, Any]) -> dict[str, Any]:
    """Returns the only container of the head of a Ray job."""
    (container,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def manifest_variables(name: str) -> dict[str, str]:
    """Returns the environment variables of the head of the Ray job in the file ``name``."""
    return {one["name"]: one["value"] for one in head_container(manifest(name))["env"]}
