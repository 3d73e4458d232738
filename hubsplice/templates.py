"""The Jinja templates. They are beside the package in a checkout, and inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape

_PACKAGE = Path(__file__).parent
_FOLDERS = (_PACKAGE / "templates", _PACKAGE.parent / "templates")


def load_template(name: str) -> Template:
    """The template with this file name, such as `recipe.yaml.j2`.

    Templates whose names end in `.html` or `.html.j2` escape what they are given. A name that is
    not given to a template is an error when it renders.

    Raises:
        jinja2.TemplateNotFound: no such template.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDERS),
        autoescape=select_autoescape(("html", "html.j2")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
