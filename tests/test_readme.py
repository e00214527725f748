"""The READMEs keep what they show: every command and every Python block runs, every picture is there."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.run import ROOT

READMES = ("README.md", "README.ja.md")
NOT_COPIED = shutil.ignore_patterns(".git", "data", "outputs", ".*cache", "__pycache__", ".hypothesis", ".venv")


def blocks(name: str) -> list[tuple[str, str]]:
    """The fenced blocks of a README: (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The command lines, `a && b` as two."""
    lines = [line for language, text in blocks("README.md") if not language for line in text.splitlines()]
    return [part for line in lines if line.startswith("python ") for part in line.split(" && ")]


def as_tested(command: str) -> list[str]:
    """A command as this test runs it: what trains is made small, and a study has two seeds."""
    words = [sys.executable, *shlex.split(command)[1:]]
    if not {"--smoke", "--resume", "--compare"} & set(words):
        words.append("--smoke")
    return ["0-1" if word == "0-9" else word for word in words]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The repository as someone has just cloned it, without data; and a folder of images to train on."""
    base = tmp_path_factory.mktemp("clone")
    folder = shutil.copytree(ROOT, base / "repository", ignore=NOT_COPIED)
    images = folder / "path" / "to" / "folder"
    images.mkdir(parents=True)
    grey = torch.randint(256, (120, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(grey):
        Image.fromarray(image.numpy()).save(images / f"{number:03d}.png")
    yield folder
    shutil.rmtree(base)


@pytest.mark.slow
def test_every_command_and_every_python_block_runs(clone):
    """In the order of the page, since later ones use the runs of earlier ones; but for installing and testing."""
    tried = [command for command in commands() if "-m pip" not in command and "-m pytest" not in command]
    assert len(tried) > 7
    calls = [(command, as_tested(command)) for command in tried]
    calls += [(text, [sys.executable, "-c", text]) for language, text in blocks("README.md") if language == "python"]
    for shown, call in calls:
        process = subprocess.run(call, cwd=clone, capture_output=True, text=True, timeout=600, check=False)
        assert process.returncode == 0, f"{shown}\n{process.stdout}{process.stderr}"
    assert (clone / "outputs" / "infogan" / "run-001" / "explore.html").exists()
    assert (clone / "outputs" / "infogan" / "compare-001" / "compare.png").exists()


def test_both_languages_show_the_same_blocks():
    assert blocks("README.md") == blocks("README.ja.md")


@pytest.mark.parametrize("name", READMES)
def test_what_a_readme_links_to_is_there(name):
    links = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")))
    files = {link for link in links if not link.startswith("http")}
    assert {link for link in files if not (ROOT / link).exists()} == set()
    assert {path.name for path in (ROOT / "docs").iterdir()} == {Path(link).name for link in files if "docs/" in link}
