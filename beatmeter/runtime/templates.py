"""HTML pages from Jinja2 templates that lie beside the code: every value is escaped, and a name that is
missing is an error."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(package: str, template: str, **values: Any) -> str:
    """The text of `template` in the folder `templates` of a package, filled with `values`."""
    return environment(package).get_template(template).render(values)


@cache
def environment(package: str) -> Environment:
    """How templates of a package are read."""
    templates = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def verbatim(name: str) -> Markup:
        """A style sheet or script of ours, as it is."""
        return Markup(resources.files(package).joinpath("templates", name).read_text(encoding="utf-8"))

    templates.globals["verbatim"] = verbatim
    return templates
