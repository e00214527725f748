"""The command line: a flag for every field of a Config, `--help` from its comments, an exit status for every end."""

import argparse
import ast
import dataclasses
import difflib
import inspect
import re
import shlex
import sys
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

import torch

from common import BadInput, RunFailed, Stopped
from common.console import open_streams
from common.data import DATASETS
from common.device import keep_freed_memory
from common.settings import ROOT, Settings, flag, read_config
from common.signals import interrupt_at_once

C = TypeVar("C", bound=Settings)
METAVARS = {int: "N", float: "X", str: "NAME", Path: "PATH"}


def run_cli(main: Callable[[C], dict], config_class: type[C]) -> None:
    """Run a script from the shell: parse its flags, call `main`, exit as `run_program` says."""
    run_program(lambda arguments: main(parse(config_class, arguments)))


def run_program(main: Callable[[list[str]], object]) -> None:
    """Call `main` with the shell's arguments, exit with 0, 1 (failed), 2 (bad input) or 130 (stopped)."""
    open_streams()
    interrupt_at_once()
    keep_freed_memory()
    try:
        main(sys.argv[1:])
    except BadInput as error:
        status, said, notes = 2, str(error), error
    except RunFailed as error:
        status, said, notes = 1, str(error), error
    except (Stopped, KeyboardInterrupt) as error:
        status, said, notes = 130, str(error) or "stopped", error
    except (MemoryError, torch.OutOfMemoryError) as error:
        status, said, notes = 1, "out of memory, a smaller --batch-size needs less", error
    except OSError as error:
        status, said, notes = 1, f"{error.filename or 'the run'}: {error.strerror or error}", error
    else:
        return
    print("; ".join((f"{Path(sys.argv[0]).name}: {said}", *getattr(notes, "__notes__", ()))), file=sys.stderr)
    raise SystemExit(status)


class Parser(argparse.ArgumentParser):
    """One that says in one line what is wrong, by raising BadInput."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (--help lists all)")


def parse(config_class: type[C], arguments: Sequence[str]) -> C:
    """Turn flags into a Config: over its defaults, over a preset such as `--smoke`, or over those of a run to resume.

    Raises BadInput with one line for an unknown flag or a value that the Config refuses; `--help` exits with 0.
    """
    parser = parser_of(config_class)
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].partition("=")[0]
        flags = [name for name in parser._option_string_actions if name.startswith("--")]
        near = difflib.get_close_matches(name.replace("_", "-"), flags, n=2, cutoff=0.75)
        near = near or [one for one in flags if initials(one).startswith(name.lstrip("-"))]
        hint = f"perhaps you meant {' or '.join(near)}" if near else "--help lists all"
        raise BadInput(f"there is no flag {name}; {hint}")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(found).items()}
    if "resume" not in given:
        return config_class.make(**given)
    stored = read_config(given["resume"], config_class)
    if stored.dataset not in DATASETS and "dataset" not in given:
        raise BadInput(
            f"{given['resume']}: was trained on a folder, and no path in a run folder is followed; "
            f"add {shlex.join(['--dataset', stored.dataset])}"
        )
    return dataclasses.replace(stored, **given)


def parser_of(config_class: type[Settings]) -> Parser:
    """The flags of a Config in the groups of its source, each with its comment and its default."""
    tree = ast.parse(source_of(config_class))
    parser = Parser(
        usage="python %(prog)s [--flag value …]",
        description=(ast.get_docstring(tree) or "").partition("\n")[0],
        epilog="Sources stand in brackets. What is not given has the value in parentheses.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for group, comments in groups_of(config_class).items():
        flags = parser.add_argument_group(group)
        for name, comment in comments.items():
            field = fields[name]
            default = _shown(field.default)
            text = (comment + (f" ({default})" if default else "")).replace("%", "%%")
            flags.add_argument(flag(name), help=text, **_accepts(field.type))
    return parser


def source_of(config_class: type[Settings]) -> str:
    """The text of the file that defines a Config. Under a profiler, `__main__` is the profiler and not the script."""
    script = config_class.__module__ == "__main__"
    return Path(sys.argv[0] if script else inspect.getfile(config_class)).read_text(encoding="utf-8")


def initials(name: str) -> str:
    """What a flag may be called for short: "lrg" for --learning-rate-g."""
    return "".join(word[0] for word in name.lstrip("-").split("-"))


def groups_of(config_class: type[Settings]) -> dict[str, dict[str, str]]:
    """{group: {field: comment}}, read from the source of a Config and of Settings, where comments are written once."""
    groups: dict[str, dict[str, str]] = {}
    for source in (config_class, Settings):
        names = {field.name for field in dataclasses.fields(config_class)}
        known = {name for comments in groups.values() for name in comments}
        group = {}
        text = source_of(source)
        here = next(node for node in ast.parse(text).body if getattr(node, "name", None) == source.__name__)
        for line in text.splitlines()[here.lineno : here.end_lineno]:
            if title := re.fullmatch(r"    # (.+)", line):
                group = groups.setdefault(title[1], {})
            elif (named := re.fullmatch(r"    (\w+): .+?  # (.+)", line)) and named[1] in names - known:
                group[named[1]] = named[2]
    return groups


def _accepts(kind: Any) -> dict[str, Any]:
    """What argparse is told of a field's type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        return {**_accepts(get_args(kind)[0]), "nargs": "+"}
    if isinstance(kind, types.UnionType):
        kind = get_args(kind)[0]
    return {"type": partial(_read, kind), "metavar": METAVARS[kind]}


def _read(kind: type, text: str) -> Any:
    """The value that a text stands for."""
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no {'whole ' if kind is int else ''}number") from None


def _shown(default: Any) -> str:
    """A default as it would be typed; "" for nothing."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, Path):
        return f"{default.relative_to(ROOT)} in the repository"
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
