"""The READMEs and docs/ keep what they show: every command and Python block runs, every link leads to a file."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.run.config import ROOT

ENGLISH, JAPANESE = ROOT / "README.md", ROOT / "README.ja.md"
PAGES = (ENGLISH, *sorted((ROOT / "docs").glob("*.md")), JAPANESE)
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = {page: re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for page, text in TEXTS.items()}
LINK = r"\]\((?!http)([^)#]+)"  # to a file, from the page's own folder
LINKS = {page: {(page.parent / link).resolve() for link in re.findall(LINK, text)} for page, text in TEXTS.items()}
# The last four need MNIST's files, or whole studies of the default length; tests/test_studies.py runs them.
NOT_RUN = ("-m pip", "-m pytest", "throughput.py", "accuracy_over_time.py", "figure_1.py", "letters")
READERS = ("compare", "pictures")  # studies that train nothing
# What Python imports in every process of the test, those that a study starts included.
SMALL = """
import pytest, common.data, common.run.run
from tests.helpers import make_quick
small, load = common.data.render_digits(train=64, test=64), common.data.load_dataset
make_quick(pytest.MonkeyPatch(), small)
load_or_small = lambda name, *rest: small if name in common.data.DATASETS else load(name, *rest)
common.data.load_dataset = common.run.run.load_dataset = load_or_small
"""
# Runs all of it in one process: to import torch, its Adam and matplotlib takes longer than such a small run.
DRIVER = """
import json, runpy, sys
for call in json.loads(sys.argv[1]):
    print(call, flush=True)
    sys.argv = call[:1] if call[0] == "-c" else call
    try:
        exec(call[1], {}) if call[0] == "-c" else runpy.run_path(call[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code
"""


def calls() -> list[list[str]]:
    """The commands, `a && b` as two, then the Python blocks; each trains for an epoch, and a study has one seed."""
    blocks = [block for page in PAGES if page != JAPANESE for block in BLOCKS[page]]
    shell, found = "".join(text for language, text in blocks if not language), []
    for line in re.findall(r"^(?:.* && )?python .*", shell, re.MULTILINE):
        for part in line.partition("  #")[0].split(" && "):
            words = [re.sub(r"^\d+-[\d,-]+$", "0", word) for word in shlex.split(part)[1:]]
            trains = not ({f"studies/{name}.py" for name in READERS} | {"--resume"}) & set(words)
            if not any(name in part for name in NOT_RUN):
                found.append([*words, *(["--epochs", "1"] if trains else [])])
    once = [list(call) for call in dict.fromkeys(map(tuple, found))]  # pages repeat commands
    return once + [["-c", text] for language, text in blocks if language == "python"]


def not_cloned(folder: str, names: list[str]) -> set[str]:
    left_out = {"data", "outputs"} if Path(folder) == ROOT else set()
    return left_out | {name for name in names if name.startswith((".", "__pycache__"))}


@pytest.fixture
def clone(tmp_path):
    """The repository as someone has just cloned it, without data; and a folder of images to train on."""
    folder = shutil.copytree(ROOT, tmp_path / "repository", ignore=not_cloned)
    (images := folder / "path" / "to" / "folder").mkdir(parents=True)
    for number, grey in enumerate(torch.randint(256, (160, 28, 28), dtype=torch.uint8)):
        Image.fromarray(grey.numpy()).save(images / f"{number:03d}.png")
    (folder / "sitecustomize.py").write_text(SMALL)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_every_command_and_every_python_block_runs(clone):
    """In the order of the pages, since later ones use the runs of earlier ones; on 64 rendered digits."""
    assert len(calls()) > 7
    command, env = [sys.executable, "-c", DRIVER, json.dumps(calls())], os.environ | {"PYTHONPATH": str(clone)}
    process = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert (clone / "outputs" / "infogan" / "compare-001" / "compare.png").exists()


def test_both_languages_show_the_same():
    assert BLOCKS[ENGLISH] == BLOCKS[JAPANESE]
    assert LINKS[ENGLISH] - {JAPANESE} == LINKS[JAPANESE] - {ENGLISH}
    tables = [re.findall(r"^\|.*", TEXTS[page], re.MULTILINE) for page in (ENGLISH, JAPANESE)]
    for row, other in zip(*tables, strict=True):
        assert sorted(re.findall(r"\d[\d.]*", row)) == sorted(re.findall(r"\d[\d.]*", other))


def test_every_link_leads_to_a_file_and_every_picture_is_linked():
    linked = set().union(*LINKS.values())
    assert [path for path in linked if not path.is_file()] == []
    assert set((ROOT / "docs").iterdir()) <= linked
