"""Print docs/configuration.md from the fields: `python -m launch.configuration_page`."""

import types
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin

from docstring_parser import parse_from_object

from sft_dist.config import DEBUG_DEFAULTS, GROUPS, ScoringConfig

HEAD = """# Configuration

Every flag of `sft-train` and `sft-evaluate`. Made by `python -m launch.configuration_page`; a test
keeps it equal to `sft_dist/config.py`.

    sft-train --config base.yaml --config ours.yaml --learning_rate 2e-5 --no_packing
    sft-train --config base.yaml --print_config        # what would hold, as YAML

Order of precedence: defaults, `--debug` defaults, settings of the resumed run, `--config` files
from left to right, the command line. A YAML file holds `name: value` lines with the names below. A
switch is `--name` or `--no_name`. Names that do not exist, values of another type and settings that
contradict one another are all told at once, before anything is allocated.

`sft-evaluate` takes the same flags but those of the optimizer and the batch.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *map(_section, (*GROUPS.values(), ScoringConfig))]
    debug = "\n".join(f"| `{name}` | {_shown(value)} |" for name, value in DEBUG_DEFAULTS.items())
    parts.append(f"## What --debug changes\n\n| flag | default |\n| --- | --- |\n{debug}\n")
    return "\n".join(parts)


def _section(group: type) -> str:
    title = (group.__doc__ or group.__name__).strip().splitlines()[0].rstrip(".")
    rows = "\n".join(_rows(group))
    return (
        f"## {title}\n\n| flag | values | default | meaning |\n| --- | --- | --- | --- |\n{rows}\n"
    )


def _rows(group: type) -> Iterator[str]:
    meanings = {p.arg_name: p.description or "" for p in parse_from_object(group).params}
    for field in fields(group):
        cells = (_values(field.type), _shown(field.default), meanings[field.name])
        yield f"| `--{field.name}` | {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _values(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_values(part) for part in get_args(annotation) if part is not type(None))
    names = {bool: "switch", int: "whole number", float: "number", str: "text"}
    return names.get(annotation, str(annotation))


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"


if __name__ == "__main__":
    print(page(), end="")
