"""What the HTTP application asks of the workers, wherever they are."""

from __future__ import annotations

from typing import Any, Protocol

from cluster.serving.answers import Answer, Refusal
from cluster.serving.bodies import ImagesBody, RequestBody


class Backend(Protocol):
    """The workers, wherever they are."""

    async def images(self, body: ImagesBody, seconds: float) -> Answer | Refusal:
        """Return the answer to a request for images, within ``seconds``."""

    async def upload(self, form: RequestBody, seconds: float) -> Answer | Refusal:
        """Return the answer to an image that was sent, within ``seconds``."""

    async def facts(self, seconds: float) -> dict[str, Any] | Refusal:
        """Return what is told of the model, within ``seconds``."""
