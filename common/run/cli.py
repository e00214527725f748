"""The command line: a flag for every field of a Config, `--help` from its comments, an exit status for every end."""

import argparse
import ast
import dataclasses
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import torch

from common import BadInput, RunFailed, Stopped
from common.run.config import Settings, flag, read_config
from common.run.console import interrupt_at_once, open_streams
from common.train.device import keep_freed_memory

STATUS = {BadInput: 2, Stopped: 130, KeyboardInterrupt: 130}
STATUS |= dict.fromkeys((RunFailed, MemoryError, OSError), 1)


def run_cli(main: Callable[[Any], dict], config_class: type[Settings]) -> None:
    """Run a script from the shell: parse its flags, call `main`, exit as `run_program` says."""
    run_program(lambda arguments: main(parse(config_class, arguments)))


def run_program(main: Callable[[list[str]], object]) -> object:
    """Call `main` with the shell's arguments, exit with 0, 1 (failed), 2 (bad input) or 130 (stopped)."""
    open_streams()
    interrupt_at_once()
    keep_freed_memory()
    try:
        return main(sys.argv[1:])
    except (*STATUS, RuntimeError) as error:
        full = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        full = full or re.search("out of memory|memory: you tried|bad_alloc", str(error))
        if not full and not isinstance(error, tuple(STATUS)):
            raise
        status = 1 if full else next(status for kind, status in STATUS.items() if isinstance(error, kind))
        line = str(error) or "stopped"
        if full:  # on a CPU PyTorch raises a plain RuntimeError
            line = "out of memory: a smaller --batch-size, or smaller networks, need less"
        elif isinstance(error, OSError):
            line = f"{error.filename or 'the run'}: {error.strerror or error}"
        lines = line, *getattr(error, "__notes__", ())
    print(f"{Path(sys.argv[0]).name}: {'; '.join(lines)}", file=sys.stderr)
    raise SystemExit(status)


class Parser(argparse.ArgumentParser):
    """One that says in one line what is wrong, by raising BadInput."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (--help lists all)")


def parse(config_class: type[Settings], arguments: Sequence[str]) -> Settings:
    """A Config from flags: over its defaults, over a preset such as `--smoke`, or over those of a run to resume.

    Raises BadInput with one line for an unknown flag or a value that the Config refuses; `--help` exits with 0.
    """
    parser = parser_of(config_class)
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].partition("=")[0]
        near = difflib.get_close_matches(name.replace("_", "-"), parser._option_string_actions, n=2, cutoff=0.75)
        hint = f"perhaps you meant {' or '.join(near)}" if near else "--help lists all"
        raise BadInput(f"there is no flag {name}; {hint}")
    given = vars(found)
    if "resume" in given:
        return dataclasses.replace(read_config(given["resume"], config_class), **given)
    return config_class.make(**given)


def parser_of(config_class: type[Settings]) -> Parser:
    """The flags of a Config in the groups of its source, each with its comment and its default."""
    parser = Parser(
        usage="python %(prog)s [--flag value …]",
        description=(ast.get_docstring(ast.parse(_source(config_class))) or "").partition("\n")[0],
        epilog="Defaults in parentheses, sources in brackets.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups, kinds, comments = {}, get_type_hints(config_class), {}
    for one in config_class.__mro__[:-1]:  # down to Settings
        comments |= {name: comment for name, comment in _comments(one).items() if name not in comments}
    order = list(comments)  # the script's own fields first
    for field in sorted(dataclasses.fields(config_class), key=lambda field: order.index(field.name)):
        group, comment = comments[field.name]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        default = str(field.default).strip("()")
        default = {"True": "on", "False": "off", "None": ""}.get(default, default)
        text = f"{comment} ({default})" if default else comment
        groups[group].add_argument(flag(field.name), help=text.replace("%", "%%"), **_accepts(kinds[field.name]))
    return parser


def _source(config_class: type[Settings]) -> str:
    """The text of the file that defines a Config. Under a profiler, `__main__` is the profiler and not the script."""
    script = config_class.__module__ == "__main__"
    return Path(sys.argv[0] if script else inspect.getfile(config_class)).read_text(encoding="utf-8")


def _comments(config_class: type[Settings]) -> dict[str, tuple[str, str]]:
    """{field: (group, comment)} from the source of a class: the comment behind a field, and the last one above it that
    has a line of its own."""
    text, group, found = _source(config_class), "options", {}
    lines = text.splitlines()
    here = next(node for node in ast.parse(text).body if getattr(node, "name", None) == config_class.__name__)
    for node in here.body:
        if isinstance(node, ast.AnnAssign):
            above = lines[node.lineno - 2].strip()
            group = above.removeprefix("# ") if above.startswith("# ") else group
            behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
            found[node.target.id] = group, behind.strip().lstrip("# ")
    return found


def _accepts(kind: Any) -> dict[str, Any]:
    """What argparse is told of a field's type. Texts become numbers and paths in the Config."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        return {**_accepts(get_args(kind)[0]), "nargs": "+"}
    kind = (get_args(kind) or [kind])[0]  # a type, or None
    return {"metavar": {int: "N", float: "X", Path: "PATH"}.get(kind, "NAME")}
