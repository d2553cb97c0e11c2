"""The policy of a scheduled retraining: what is trained on what, for how long, and when it is good enough."""

from __future__ import annotations

import os
import re

from pydantic import Field, field_validator, model_validator

from cluster.run.settings import RunSettings
from freqgan.errors import InputError, nearest
from freqgan.metrics.catalogue import FAMILIES, FEWEST, LEARNED, LEARNED_FRECHET
from freqgan.setting_group import SettingGroup
from launch.settings.load import load_settings, validate
from launch.settings.yaml_text import parse_yaml, read_text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Policy(SettingGroup):
    """One YAML file; ``freqgan retrain POLICY.yaml`` runs it."""

    name: str = Field(description="Name of the model.")
    models: str = Field(description="Folder or s3:// URL of all models; this one is kept in <models>/<name>.")
    data: str = Field(description="Folder or s3:// URL of shards with an index.json; it may grow.")
    held_out: str = Field(
        description="Shards that the candidate and the model in use are both measured on; never trained on."
    )
    settings: str = Field(description="Preset, or YAML file of settings of a training.")
    overrides: list[str] = Field([], description="Settings as key=value that replace those of `settings`.")
    images: int = Field(ge=1, description="Images that a retraining sees.")
    first_images: int | None = Field(
        None, ge=1, description="Images that the first training sees; `images` where not given."
    )
    min_new_images: int = Field(1, ge=1, description="Fewer new images than this count as nothing new.")
    gate: dict[str, float] = Field(
        {LEARNED_FRECHET: 0.05, "sliced_wasserstein": 0.05, "cross_band_frechet": 0.05},
        description="For each metric, how much worse than the model in use a candidate may be, as a share "
        "(0.05), or how much better it has to be (-0.02).",
    )
    count: int = Field(
        1_000, ge=FEWEST, description="Images that a model is measured on; twice as many real ones are needed."
    )
    learned: bool = Field(
        True,
        description="Whether both are measured by learned features too: two small networks are taught what the images "
        "of `held_out` show, once for these, which takes minutes of a core.",
    )
    keep: int = Field(5, ge=1, description="Newest versions that are kept, beside those in use.")
    webhook: str = Field("", description="URL that is told the outcome as JSON; ${NAME} is read from the environment.")

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("use letters, digits, '.', '_' and '-'")
        return name

    @field_validator("gate")
    @classmethod
    def _known(cls, gate: dict[str, float]) -> dict[str, float]:
        known = list(FAMILIES)
        for metric in gate:
            if metric.partition(".")[0] not in known:
                raise ValueError(
                    f"no metric is called {metric!r}{nearest(metric, known)}; there are {', '.join(known)}"
                )
        if not gate:
            raise ValueError(f"name at least one metric of {', '.join(known)}")
        return gate

    @model_validator(mode="after")
    def _measured(self) -> Policy:
        """Refuse a gate of what is not measured."""
        unmeasured = [metric for metric in self.gate if metric.startswith(LEARNED)]
        if unmeasured and not self.learned:
            raise InputError(
                f"gate: {unmeasured[0]} is not measured with learned: false; leave one of the two out of the policy"
            )
        return self

    @property
    def url(self) -> str:
        """The URL of the model."""
        return f"{self.models.rstrip('/')}/{self.name}"

    def webhook_url(self) -> str:
        """Return the webhook with variables of the environment filled in.

        Raises:
            InputError: a variable is not set, or what they give is no http URL.

        """

        def value(match: re.Match[str]) -> str:
            content = os.environ.get(match[1])
            if content is None:
                raise InputError(f"webhook: the environment has no variable {match[1]}; set it, or leave webhook out")
            return content

        url = _VARIABLE.sub(value, self.webhook)
        if url and not url.startswith(("http://", "https://")):
            raise InputError("webhook: it must be an http:// or https:// URL, once its variables are filled in")
        return url

    def run_settings(self, run: str, data: str, *, is_first: bool) -> RunSettings:
        """Return the settings of a training of this policy."""
        images = self.first_images if is_first and self.first_images else self.images
        own = [f"run={run}", f"data={data}", f"images={images}"]
        return load_settings(self.settings, [*self.overrides, *own])


def load_policy(source: str) -> Policy:
    """Return the policy of a YAML file, a path or an s3:// URL; InputError names the key at fault and the remedy."""
    values = parse_yaml(read_text(source), f"{source} is no valid YAML")
    if not isinstance(values, dict):
        raise InputError(f"{source} holds no policy: write lines like `name: clothes`")
    try:
        return validate(values, Policy)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
