"""Files: whole or not at all, read back as they were, damaged ones named, folders never shared."""

import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from common import BadInput, files
from common.settings import ROOT


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, OSError(errno.EIO, "broken", "scratch")])
def test_a_file_appears_whole_and_after_an_error_the_old_one_stays(tmp_path, error):
    def write(text: str, error: Exception | None = None) -> None:
        with files.atomic_write(tmp_path / "my file") as scratch:
            scratch.write_text(text)
            if error:
                raise error

    write("old")
    with pytest.raises(error if isinstance(error, type) else OSError) as raised:
        write("new", error)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("my file", "old")]
    assert not isinstance(raised.value, OSError) or raised.value.filename == str(tmp_path / "my file")


FULL = """
import resource, sys, torch
from pathlib import Path
from common.checkpoint import write_tensors
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    write_tensors(Path(sys.argv[1]), {"weight": torch.zeros(1_000_000)})
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_disk_that_fills_up_within_a_tensor_is_an_error_of_the_file_whose_old_content_stays(tmp_path):
    """There torch.save raises an error of its own, not the disk's."""
    path = tmp_path / "checkpoint.pt"
    path.write_text("old")
    call = [sys.executable, "-c", FULL, str(path)]
    process = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (process.stdout, process.stderr) == (f"{errno.EFBIG} {path}\n", "")
    assert [found.read_text() for found in tmp_path.iterdir()] == ["old"]


def test_numbers_and_text_come_back_as_they_were_and_what_json_cannot_hold_is_not_written(tmp_path):
    content = {"ö": [1, 2.5, None, True], "path": tmp_path, "rate": 1e-300}
    files.write_json(tmp_path / "x.json", content)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert files.read_json(tmp_path / "x.json") == content | {"path": str(tmp_path)}
    rows = [{"epoch": 1, "loss": 0.1 + 0.2, "much": 1e300}, {"epoch": 2, "loss": 0.0, "much": -1e-300}]
    files.write_csv(tmp_path / "x.csv", rows)
    found = files.read_numbers(tmp_path / "x.csv")
    assert (found, [type(value) for value in found[1].values()]) == (rows, [int, float, float])
    assert files.read_numbers(tmp_path / "none.csv") == []


JSON = (b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b"3" * 5000)
CSV = (b"epoch,loss\n1\n", b"epoch\n1,2\n", b"\xff\xfe", b"epoch\nmany\n", b'a\n"' + b"1" * 200_000)


@pytest.mark.parametrize(("read", "contents"), [(files.read_json, JSON), (files.read_numbers, CSV)])
def test_a_damaged_file_and_a_folder_in_its_place_are_named(tmp_path, read, contents):
    (tmp_path / "folder").mkdir()
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    for path in tmp_path.iterdir():
        with pytest.raises(BadInput, match=f"^{path}: .*$"):
            read(path)


def test_folders_take_the_next_free_number_and_two_never_share_one(tmp_path):
    for name in ("run-002", "run-009", "run-abc", "run-1x", "seed-050"):
        (tmp_path / "new" / name).mkdir(parents=True)
    (tmp_path / "new" / "run-010").touch()
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(files.numbered_folder, [tmp_path / "new"] * 60))
    assert sorted(path.name for path in found if path.is_dir()) == [f"run-{number:03d}" for number in range(11, 71)]
    assert files.numbered_folder(tmp_path / "new", "seed").name == "seed-051"
    for parent in ("run-010", "run-010/inner"):
        with pytest.raises(BadInput, match=f"^--out: .*/{parent}: "):
            files.numbered_folder(tmp_path / "new" / parent)
