"""`--help`, read from the source of a Config, where groups, comments and defaults are written once; and the right flag
for one that is nearly right."""

import dataclasses
import difflib
import inspect
import re
import textwrap
import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from common import BadInput

WIDTH = 80  # columns
INDENT = 26  # columns before the comment of a field
METAVARS = {int: "N", float: "X", str: "NAME", Path: "PATH"}


def help_text(config_class: type, script: str, about: str, root: Path) -> str:
    """The flags of a Config in the groups of its source, each with its comment and its default.

    `about` is said first; defaults below `root` are shown from there.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    lines = [f"usage: python {script} [--flag value …]", "", *textwrap.wrap(about, WIDTH)]
    for line in inspect.getsource(config_class).splitlines():
        if group := re.fullmatch(r"\s+# (.+)", line):
            lines += ["", group[1]]
        elif named := re.fullmatch(r"\s+(\w+): .+?  # (.+)", line):
            lines += _flag_lines(fields[named[1]], named[2], root)
    return "\n".join([*lines, "", "Sources stand in brackets. What is not given has the value in parentheses."])


def check_flags(config_class: type, arguments: list[str]) -> None:
    """Raise BadInput for a flag that the Config has not, with those that come near it."""
    fields = dataclasses.fields(config_class)
    flags = ["--" + field.name.replace("_", "-") for field in fields]
    flags += ["--no-" + field.name.replace("_", "-") for field in fields if field.type is bool]
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in flags:
            near = difflib.get_close_matches(flag, flags, n=2, cutoff=0.75)
            hint = f"perhaps you meant {' or '.join(near)}" if near else "--help lists all"
            raise BadInput(f"there is no flag {flag}; {hint}")


def _flag_lines(field: dataclasses.Field, comment: str, root: Path) -> list[str]:
    name = field.name.replace("_", "-")
    flag = f"  --{name} {_metavar(field.type)}".rstrip()
    if field.type is bool:
        flag = f"  --{name}, --no-{name}" if field.default else f"  --{name}"
    default = _shown(field.default, root)
    text = comment + (f" ({default})" if default else "")
    wrapped = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * INDENT,
        subsequent_indent=" " * INDENT,
        break_on_hyphens=False,
        break_long_words=False,
    )
    if len(flag) < INDENT - 1:
        wrapped[0] = flag.ljust(INDENT) + wrapped[0].lstrip()
        return wrapped
    return [flag, *wrapped]


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if get_origin(kind) is tuple:
        return f"{METAVARS[get_args(kind)[0]]} …"
    if isinstance(kind, types.UnionType):
        kind = get_args(kind)[0]
    return METAVARS.get(kind, "")


def _shown(default: Any, root: Path) -> str:
    """A default as it would be typed; "" for nothing."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, Path):
        return f"{default.relative_to(root)} in the repository"
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
