"""The layout: imports run one way, scripts stand alone, files are short."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from common.settings import ROOT

SCRIPTS = ("autoencoder", "gan_mlp", "infogan")
STUDIES = {path.stem for path in (ROOT / "studies").glob("*.py")} | {"studies"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


COMMON = {name_of(path): path for path in sorted((ROOT / "common").rglob("*.py"))}
FILES = COMMON | {name: ROOT / f"{name}.py" for name in SCRIPTS}


@cache
def imports(name: str) -> set[str]:
    """The modules that a file imports anywhere, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}  # a module, or what stands in one
            found |= {part if part in FILES else node.module for part in parts}
    return found


def test_no_import_comes_back_to_where_it_began():
    order = list(TopologicalSorter({name: imports(name) for name in FILES}).static_order())  # raises CycleError
    assert order.index("common.run") > order.index("common.checkpoint") > order.index("common.files")


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_no_script_and_no_study(name):
    assert not {found.partition(".")[0] for found in imports(name)} & ({*SCRIPTS} | STUDIES)


@pytest.mark.parametrize("name", [name for name in COMMON if not name.startswith("common.look")])
def test_what_looks_at_a_model_is_known_to_the_scripts_alone(name):
    assert not {found for found in imports(name) if found.startswith("common.look")}


@pytest.mark.parametrize("path", COMMON.values(), ids=COMMON)
def test_a_file_has_at_most_200_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200
