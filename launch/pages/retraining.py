"""What a retraining tells people: a page of Markdown, the same as HTML, and a few numbers for a webhook."""

from __future__ import annotations

import time
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.run.model_registry import Version
from launch.console.text import duration_text
from launch.settings.yaml_text import dump_yaml

ANNOUNCED = "ANNOUNCED"
MARKDOWN, HTML = "summary.md", "summary.html"


def summarise(version: Version) -> dict[str, Any]:
    """Return the outcome in short, as JSON for a webhook."""
    record = version.record
    return {
        "name": record.name,
        "version": version.number,
        "from": record.begins_with,
        "in_use": record.verdict.holds,
        "url": version.folder.url,
        "new_images": record.data.new_images,
        "images": record.data.images,
        "gate": [row.values() for row in record.verdict.rows],
    }


def write_summary(version: Version) -> None:
    """Write summary.md and summary.html beside the model."""
    record = version.record
    values = {
        "version": version,
        "record": record,
        "verdict": record.verdict,
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.finished_at_s)),
        "taken": duration_text(record.finished_at_s - record.begun_at_s),
        "settings": record.settings if isinstance(record.settings, str) else dump_yaml(record.settings),
    }
    for name in (MARKDOWN, HTML):
        environment = Environment(
            loader=PackageLoader("launch.pages"), undefined=StrictUndefined, autoescape=name == HTML, trim_blocks=True
        )
        template = environment.get_template(f"retraining{name[name.rindex('.') :]}")
        version.folder.write(name, template.render(values).encode())
