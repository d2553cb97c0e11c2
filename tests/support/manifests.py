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


def island_entry_points() -> dict[str, str]:
    """Returns what the job of every island of the overlay ``islands`` runs, by the name of the island."""
    overlay = ROOT / "k8s" / "overlays" / "islands"
    names = yaml.safe_load((overlay / "kustomization.yaml").read_text())["resources"]
    return {name: _entry_point(yaml.safe_load((overlay / name / "kustomization.yaml").read_text())) for name in names}


def serve_config() -> dict[str, Any]:
    """Returns what the RayService of the overlay ``serve`` is to serve."""
    service = yaml.safe_load((ROOT / "k8s" / "overlays" / "serve" / "rayservice.yaml").read_text())
    loaded: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    return loaded


def _entry_point(kustomization: dict[str, Any]) -> str:
    """Returns the entry point that the patches of an overlay set."""
    operations = [one for patch in kustomization["patches"] for one in yaml.safe_load(patch["patch"])]
    (value,) = (one["value"] for one in operations if one["path"] == "/spec/entrypoint")
    return str(value)


def island_settings() -> dict[str, Any]:
    """Returns the settings that all islands of the overlay get."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "k8s" / "components" / "island" / "settings.yaml").read_text())
    return loaded
