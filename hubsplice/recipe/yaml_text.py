"""YAML as recipes use it: plain data, no duplicate keys, no surprises from YAML 1.1.

YAML 1.1 reads `no` as false, `1e-3` as text, `010` as eight and `2024-01-01` as a date. Here,
as in YAML 1.2, `true` and `false` are the only booleans, numbers are decimal, and everything
else is text.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from hubsplice.errors import RecipeError

# JSON carries the parsed recipe into validation, and its integers end here.
_LARGEST_INTEGER = 2**63 - 1

_SCALARS = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        (
            r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars above, and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not supported", alias.start_mark
            )
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) not in (None, "!"):
            # `!!bool maybe` would be a promise that nobody keeps.
            raise yaml.composer.ComposerError(
                None, None, f"tags such as {event.tag} are not supported", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    f"{key.value!r} is given",
                    seen[key.value],
                    "and given again; keep one of them",
                    key.start_mark,
                )
            seen[key.value] = key.start_mark
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever the loader above would not read back as text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def load_yaml(text: str) -> Any:
    """Parse YAML into dicts with text keys, lists, text, finite numbers, booleans and None.

    Raises:
        RecipeError: malformed YAML, a duplicate key, an alias, an object tag, a number that is
            not finite, or nesting deeper than any recipe has.
    """
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (a subclass of the safe loader)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"the recipe is not valid YAML: {error}") from None
    except RecursionError:
        raise RecipeError("the recipe is not valid YAML: it is nested too deeply") from None
    require_plain(data)
    return data


def dump_yaml(data: Any) -> str:
    """Write plain data as YAML that `load_yaml` reads back the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def require_plain(data: Any) -> None:
    """Raise `RecipeError` for what no recipe can hold: a key, a number or an object."""
    _refuse_exotic(data, "")


def _refuse_exotic(value: Any, path: str) -> None:
    where = path or "the recipe"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise RecipeError(f"{where}: the key {key!r} must be text; write it in quotes")
            _refuse_exotic(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _refuse_exotic(item, f"{path}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where}: found {value}, expected a finite number")
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise RecipeError(f"{where}: found a number of more than 63 bits")
    elif not (value is None or isinstance(value, str | int | float)):
        raise RecipeError(f"{where}: found {value!r}, expected text, a number, a list or a mapping")
