"""What requests may ask for, without a model."""

from __future__ import annotations

import json

import pytest

from cluster.serving.bodies import (
    BodyError,
    DecomposeForm,
    EditForm,
    ImagesBody,
    RequestBody,
    SuperResolveForm,
    field_names,
    parse_fields,
    parse_json,
)


def test_every_field_can_be_left_out() -> None:
    assert parse_json(ImagesBody, b"") == parse_json(ImagesBody, b"{}") == ImagesBody()


def test_fields_have_the_names_of_the_documentation() -> None:
    text = b'{"class": "cat", "mix": {"coarse": 1, "fine": 2}, "gains": {"HH1": 2}, "seed": null}'
    body = parse_json(ImagesBody, text)
    assert (body.category, body.gains, body.seed) == ("cat", {"HH1": 2.0}, None)
    assert body.mix is not None
    assert (body.mix.coarse, body.mix.fine, body.mix.at, body.mix.by) == (1, 2, 1, "noise")
    assert "class" in field_names(ImagesBody)
    assert "category" not in field_names(ImagesBody)


@pytest.mark.parametrize(
    ("text", "field", "part"),
    [
        ('{"sed": 1}', "sed", "did you mean seed"),
        ('{"category": "cat"}', "category", "class"),
        ('{"mix": {"coarse": 1, "fin": 2}}', "mix.fin", "did you mean fine"),
        ('{"mix": {"coarse": 1}}', "mix.fine", "give it"),
        ('{"seed": -1}', "seed", "greater than or equal to 0"),
        ('{"seed": 9223372036854775808}', "seed", "less than or equal"),
        ('{"seed": 1.5}', "seed", "integer"),
        ('{"seed": "1"}', "seed", "integer"),
        ('{"count": 0}', "count", "greater than or equal to 1"),
        ('{"count": true}', "count", "integer"),
        ('{"gains": {"HH1": NaN}}', "gains.HH1", "finite"),
        ('{"gains": {"HH1": 1e999}}', "gains.HH1", "finite"),
        ('{"truncation": -1}', "truncation", "greater"),
        ('{"vector": []}', "vector", "at least 1"),
        ('{"vector": ["a"]}', "vector.0", "number"),
        ('{"format": "gif"}', "format", "'preview', 'zip', 'json' or 'layers'"),
        ('{"prompt": 3}', "prompt", "string"),
        ("[1]", None, "no object of JSON"),
        ("{", None, "no object of JSON"),
        ("\xff", None, "no object of JSON"),
        ("[" * 100_000, None, "no object of JSON"),
        ('{"prompt": "\\ud800"}', None, ""),
    ],
)
def test_wrong_values_are_refused_with_their_field(text: str, field: str | None, part: str) -> None:
    with pytest.raises(BodyError) as refusal:
        parse_json(ImagesBody, text.encode("latin-1"))
    assert refusal.value.field in (field, None) if field is None else refusal.value.field == field
    assert part in str(refusal.value)
    json.dumps(str(refusal.value)).encode()


def test_a_prompt_that_is_refused_is_not_repeated() -> None:
    with pytest.raises(BodyError) as refusal:
        parse_json(ImagesBody, json.dumps({"prompt": "secret " * 1000}).encode())
    assert "secret" not in str(refusal.value)


def test_forms_hold_texts_and_files() -> None:
    values: dict[str, str | bytes] = {"image": b"png", "gains": '{"HH1": 2}', "resample": "HL1, LH1", "class": "cat"}
    form = parse_fields(EditForm, values)
    assert (form.image, form.gains, form.resample, form.category) == (b"png", {"HH1": 2.0}, ["HL1", "LH1"], "cat")
    assert parse_fields(SuperResolveForm, {"image": b"png", "level": "2"}).level == 2
    assert parse_fields(SuperResolveForm, {"image": b"png", "level": "", "class": ""}).level == 1


@pytest.mark.parametrize(
    ("kind", "values", "field", "part"),
    [
        (EditForm, {"image": "text"}, "image", "to be a file"),
        (EditForm, {"image": b"", "gains": b"{}"}, "gains", "no file"),
        (EditForm, {"image": b"", "gains": "{"}, "gains", "no JSON"),
        (EditForm, {"image": b"", "gains": "[1]"}, "gains", "dictionary"),
        (EditForm, {}, "image", "give it"),
        (DecomposeForm, {"imag": b""}, "imag", "did you mean image"),
        (DecomposeForm, {"image": b"", "levels": "many"}, "levels", "integer"),
    ],
)
def test_wrong_fields_of_forms_are_refused(
    kind: type[RequestBody], values: dict[str, str | bytes], field: str, part: str
) -> None:
    with pytest.raises(BodyError) as refusal:
        parse_fields(kind, values)
    assert refusal.value.field == field
    assert part in str(refusal.value)
