"""Any bytes in the place of a file: either the data or the documented error comes out, never another exception."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import autoencoder
import gan_mlp
import infogan
from common import BadInput
from common.data import load_dataset
from common.run import Run, parse, read_config, read_rows
from tests.children import OWN, SMALL, TINY
from tests.helpers import CPU
from tests.test_bad_input import FILES, IMAGES, LABELS, idx

patient = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """A file cut short, with some bytes altered or inserted, or another one altogether."""
    how = draw(st.sampled_from(["cut", "altered", "inserted", "other"]))
    if how == "cut":
        return whole[: draw(st.integers(0, len(whole) - 1))]
    if how == "other":
        return draw(st.binary(max_size=80))
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        # Headers stand at the start and, in an archive, at the end.
        place = draw(st.integers(0, min(400, len(whole) - 1)) | st.integers(0, len(whole) - 1))
        content[place : place + (how == "altered")] = draw(st.binary(min_size=1, max_size=1 if how == "altered" else 8))
    return bytes(content)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A whole small set of unpacked files, whose checksums nobody knows."""
    folder = tmp_path_factory.mktemp("fuzz") / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in zip(FILES, (IMAGES, LABELS) * 2, strict=True):
        (folder / name).write_bytes(idx(array))
    return folder


@patient
@given(st.data())
def test_an_idx_file_of_any_bytes(raw, data):
    name = data.draw(st.sampled_from(FILES))
    before = (raw / name).read_bytes()
    (raw / name).write_bytes(data.draw(damaged(before)))
    with contextlib.suppress(BadInput):
        found = load_dataset("mnist", raw.parents[1])
        assert found.train_images.shape[1:] == found.test_images.shape[1:] == (28, 28)
        assert len(found.train_images) == len(found.train_labels)
    (raw / name).write_bytes(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the autoencoder, small enough for a byte to matter."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "load_dataset", lambda *_: TINY)
        flags = [*SMALL, *OWN["autoencoder"], "--hidden", "2", "--epochs", "1", "--out", str(out)]
        autoencoder.main(parse(autoencoder.Config, flags))
    yield out / "autoencoder" / "run-001"
    shutil.rmtree(out)


scalars = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))


@pytest.mark.parametrize("script", [autoencoder, gan_mlp, infogan], ids=lambda module: module.__name__)
@patient
@given(st.data())
def test_a_config_of_any_values(tmp_path, finished, script, data):
    """Every field may be anything that JSON can say, NaN and infinity among it."""
    whole = {name: value for name, value in vars(script.Config()).items() if name not in ("resume", "compare", "quiet")}
    whole |= {"script": script.__name__, "data_dir": "data", "out": "out"}
    for name in data.draw(st.lists(st.sampled_from(sorted(whole)), max_size=4)):
        whole[name] = data.draw(values)
    (tmp_path / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    with contextlib.suppress(BadInput):
        assert isinstance(read_config(tmp_path, script.Config), script.Config)


@patient
@given(st.data())
def test_a_config_of_any_bytes(tmp_path, finished, data):
    (tmp_path / "config.json").write_bytes(data.draw(damaged((finished / "config.json").read_bytes())))
    with contextlib.suppress(BadInput):
        assert isinstance(read_config(tmp_path, autoencoder.Config), autoencoder.Config)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@patient
@given(st.data())
def test_a_checkpoint_of_any_bytes(tmp_path, finished, data):
    """For `load`, and for a run that goes on from it."""
    for name in ("config.json", "metrics.csv"):
        shutil.copy(finished / name, tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(data.draw(damaged((finished / "checkpoint.pt").read_bytes())))
    with contextlib.suppress(BadInput):
        images = autoencoder.load(tmp_path).decode(torch.zeros(1, 2))
        assert images.isfinite().all()
    config = parse(autoencoder.Config, ["--resume", str(tmp_path), "--quiet"])
    run = Run(config, "autoencoder", TINY, CPU, "float32")
    network, optimizer = autoencoder.build(config, CPU, torch.zeros(784))
    with contextlib.suppress(BadInput):
        run.keep(network=network, optimizer=optimizer)
        assert len(run.rows) == run.epoch


@patient
@given(st.data())
def test_metrics_of_any_bytes(tmp_path: Path, finished, data):
    (tmp_path / "metrics.csv").write_bytes(data.draw(damaged((finished / "metrics.csv").read_bytes())))
    with contextlib.suppress(BadInput):
        assert all(isinstance(row, dict) for row in read_rows(tmp_path / "metrics.csv"))
