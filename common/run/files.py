"""Files are written atomically: a killed process never leaves half of one under its real name."""

import contextlib
import csv
import errno
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import BadInput

PARTIAL = ".partial"  # ending of the temporary file that a killed process leaves behind


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to. It is renamed to `path` on success and removed on failure.

    Raises OSError, naming `path`, if the disk is full or read-only.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None
    finally:
        scratch.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    for left_over in folder.glob(f".*{PARTIAL}"):
        left_over.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object. Raises ValueError for a number that JSON cannot hold (nan, infinity)."""
    with atomic_write(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, allow_nan=False, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises BadInput, naming the file, if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds no JSON object")
    return content


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, the header first; a column that a row lacks is empty there."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with atomic_write(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a CSV file of numbers, without their empty cells; none without a file. Raises BadInput, naming a
    damaged file."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        filled = ({name: text for name, text in row.items() if text != ""} for row in rows)
        return [{name: int(text) if text.isdecimal() else float(text) for name, text in row.items()} for row in filled]
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise BadInput(f"{path}: is damaged: {error}") from None


def numbered_folder(parent: Path, kind: str = "run") -> Path:
    """Make and return `parent/run-NNN` with the next free number. Two processes never get the same one.

    Raises BadInput if it can't be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            taken = [int(m[1]) for path in parent.iterdir() if (m := re.fullmatch(kind + r"-(\d+)", path.name))]
            folder = parent / f"{kind}-{max(taken, default=0) + 1:03d}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise BadInput(f"--out: {error.filename}: {error.strerror}") from None
