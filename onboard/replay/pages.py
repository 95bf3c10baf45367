"""The pages that a replay leaves: templates of this room, strict about names, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **told: Any) -> str:
    """The page as text. What is told is escaped unless it is Markup; a name that is not told is an error."""
    environment = Environment(
        loader=PackageLoader("onboard.replay", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**told)


def write_page(path: Path, text: str) -> None:
    """Beside, and then renamed."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
