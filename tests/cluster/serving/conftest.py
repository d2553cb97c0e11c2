"""Small trained models that the tests of the service share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.serving.hosted_model import HostedModel, load_model
from cluster.serving.model_source import ModelSource
from tests.support.serving import FLOWS, small_run


@pytest.fixture(scope="session")
def gan_run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of GANs and an image stage."""
    return small_run(tmp_path_factory.mktemp("serving") / "gans", small_shards)


@pytest.fixture(scope="session")
def gans(gan_run: str) -> HostedModel:
    """Its model."""
    return load_model(ModelSource(gan_run).newest())


@pytest.fixture(scope="session")
def featured(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> HostedModel:
    """A model of GANs that is shown features of images."""
    shown = {"kinds": ["class", "features"], "features_length": 4}
    run = small_run(tmp_path_factory.mktemp("serving") / "featured", small_shards, max_steps=2, conditioning=shown)
    return load_model(ModelSource(run).newest())


@pytest.fixture(scope="session")
def flows(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> HostedModel:
    """A model of flow experts."""
    run = small_run(tmp_path_factory.mktemp("serving") / "flows", small_shards, max_steps=2, **FLOWS)
    return load_model(ModelSource(run).newest())
