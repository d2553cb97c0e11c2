"""The description of the service that ``GET /openapi.json`` gives: every path, body, answer and error."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel

from cluster.serving.answers import JSON, PNG, TENSORS, WEBP, ZIP
from cluster.serving.bodies import (
    DecomposeForm,
    EditForm,
    ImagesBody,
    RequestBody,
    StyleForm,
    SuperResolveForm,
    schema_of,
)
from cluster.serving.hosted_model import MODEL_HEADER, VERSION_HEADER
from freqgan import __version__

FORM = "multipart/form-data"
LIVE = "With --live, how the training of the run does"
LIVE_ANSWER: tuple[str, dict[str, str], str] = (JSON, {"type": "object"}, "503")
BINARY = {"type": "string", "format": "binary"}
ERRORS = {
    "400": "The model cannot do this.",
    "401": "The token is not there, or is another.",
    "403": "Without a token the service answers to localhost alone.",
    "408": "The body did not come in time.",
    "413": "The body has too many bytes.",
    "415": "The body is of another media type.",
    "422": "The body has other fields or values than these.",
    "429": "Too many requests wait; see Retry-After.",
    "500": "The service failed at this request.",
    "503": "No worker answers just now; see Retry-After.",
    "504": "The answer took too long; see Retry-After.",
}
OF_READING = ("401", "403", "500")


class ErrorDetail(BaseModel):
    """What is wrong and what helps, and the field that is wrong, if it is one."""

    message: str
    field: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class NamedImage(BaseModel):
    """An image among several, in base64 by the kind of its file, of which there is one."""

    name: str
    png: str = ""
    webp: str = ""
    npy: str = ""


class ImagesAnswer(BaseModel):
    """Images as JSON, files in base64."""

    version: str
    model: str
    first: int
    images: list[NamedImage]


class Operation(NamedTuple):
    """One path that takes a body."""

    path: str
    body: type[RequestBody]
    summary: str
    answers: dict[str, dict[str, Any]]
    has_version: bool = True


OPERATIONS = (
    Operation(
        "/v1/images",
        ImagesBody,
        "Images that the model draws",
        {
            PNG: BINARY,
            WEBP: BINARY,
            ZIP: BINARY,
            JSON: {"$ref": "#/components/schemas/ImagesAnswer"},
            TENSORS: BINARY,
        },
    ),
    Operation("/v1/super-resolve", SuperResolveForm, "An image enlarged", {PNG: BINARY}),
    Operation("/v1/edit", EditForm, "An image with some bands weighed or drawn anew", {PNG: BINARY}),
    Operation("/v1/style", StyleForm, "An image in the style of another", {PNG: BINARY}, False),
    Operation(
        "/v1/decompose",
        DecomposeForm,
        "An image taken apart into its bands",
        {PNG: BINARY, JSON: {"type": "object"}, TENSORS: BINARY},
        False,
    ),
)


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the service."""
    kinds: list[type[BaseModel]] = [ErrorBody, ImagesAnswer, *(operation.body for operation in OPERATIONS)]
    paths = {operation.path: {"post": _posted(operation)} for operation in OPERATIONS}
    paths |= {
        "/v1/model": {"get": _read("What is served", JSON, {"type": "object"}, "503")},
        "/healthz": {"get": _read("Whether the service lives", JSON, {"type": "object"}) | {"security": []}},
        "/readyz": {"get": _read("Whether a model answers", JSON, {"type": "object"}, "503") | {"security": []}},
        "/metrics": {"get": _read("Counters, as Prometheus reads them", "text/plain", {"type": "string"})},
        "/openapi.json": {"get": _read("This document", JSON, {"type": "object"})},
        "/run/facts": {"get": _read(f"{LIVE}. Its grids of samples are at /run/samples/<images>.png", *LIVE_ANSWER)},
        "/run/metrics": {"get": _read(f"{LIVE}: curves, or what is new after=<cursor> of an answer", *LIVE_ANSWER)},
        "/run/scores": {"get": _read(f"{LIVE}: scores of checkpoints, losses on held-out images", *LIVE_ANSWER)},
        "/run/settings": {"get": _read(f"{LIVE}: its settings", *LIVE_ANSWER)},
        "/": {"get": _read("A page for people", "text/html", {"type": "string"}) | {"security": []}},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "FreqGAN", "version": __version__, "description": "Images of a trained model."},
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "schemas": schema_of(kinds),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _posted(operation: Operation) -> dict[str, Any]:
    form = JSON if operation.body is ImagesBody else FORM
    headers = {
        VERSION_HEADER: {"description": "Version of the model, or step.", "schema": {"type": "string"}},
        MODEL_HEADER: {"description": "Digest of its averaged weights.", "schema": {"type": "string"}},
    }
    answer = {
        "description": operation.summary,
        "content": {media_type: {"schema": schema} for media_type, schema in operation.answers.items()},
    }
    return {
        "summary": operation.summary,
        "operationId": operation.path.rpartition("/")[2].replace("-", "_"),
        "requestBody": {
            "required": True,
            "content": {form: {"schema": {"$ref": f"#/components/schemas/{operation.body.__name__}"}}},
        },
        "responses": {"200": answer | ({"headers": headers} if operation.has_version else {})} | _errors(*ERRORS),
    }


def _read(summary: str, media_type: str, schema: dict[str, Any], *errors: str) -> dict[str, Any]:
    answer = {"description": summary, "content": {media_type: {"schema": schema}}}
    return {"summary": summary, "responses": {"200": answer} | _errors(*OF_READING, *errors)}


def _errors(*statuses: str) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    return {status: {"description": ERRORS[status], "content": content} for status in sorted(statuses)}
