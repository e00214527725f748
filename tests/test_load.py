"""A finished run as a model: images from codes, codes from images, and what is refused."""

import contextlib
import json
import math
import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import infogan
from common import BadInput
from common.run import read_tensors
from common.streams import stream
from infogan import Config, Discriminator, Generator, Model

PERMUTED = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])  # the digit of each category


@pytest.fixture(scope="module")
def model(smoke_run) -> Model:
    return infogan.load(smoke_run.folder)


@pytest.fixture(scope="module")
def permuted() -> Model:
    """Untrained, with a map from categories to digits that is not its own inverse."""
    torch.manual_seed(0)
    return Model(Config(), Generator(62), Discriminator(False), PERMUTED)


# Drawing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 37])
def test_images_have_their_shape_type_and_range(model, n):
    images = model.generate(n)
    assert images.shape == (n, 1, 28, 28)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert not images.requires_grad


def test_one_image_is_drawn_if_nothing_is_said(model):
    assert model.generate().shape == (1, 1, 28, 28)


def test_a_seed_repeats_the_drawing_and_none_does_not(model):
    assert torch.equal(model.generate(4, seed=1), model.generate(4, seed=1))
    assert not torch.equal(model.generate(4, seed=1), model.generate(4, seed=2))
    assert not torch.equal(model.generate(4), model.generate(4))


def test_drawing_leaves_the_global_random_state_alone(model):
    before = torch.get_rng_state()
    model.generate(4)
    model.generate(4, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_does_not_depend_on_those_drawn_beside_it(model):
    noise, codes = torch.randn(5, 62), {"category": torch.arange(5), "c2": torch.zeros(5), "c3": torch.ones(5)}
    together = model.generate(5, noise=noise, **codes)
    for i in range(5):
        alone = model.generate(1, noise=noise[i : i + 1], category=i, c2=0.0, c3=1.0)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["digit", "category"])
def test_one_number_stands_for_all_images(model, name):
    one, each = {name: 3}, {name: torch.full((6,), 3)}
    assert torch.equal(model.generate(6, seed=1, **one), model.generate(6, seed=1, **each))
    assert torch.equal(model.generate(6, seed=1, **one), model.generate(6, seed=1, **{name: torch.tensor(3)}))
    assert not torch.equal(model.generate(6, seed=1, **one), model.generate(6, seed=1, **{name: 4}))


@pytest.mark.parametrize("name", ["c2", "c3"])
def test_one_value_of_a_code_stands_for_all_images(model, name):
    one, each = {name: 0.5}, {name: torch.full((6,), 0.5)}
    assert torch.equal(model.generate(6, seed=1, **one), model.generate(6, seed=1, **each))
    assert torch.equal(model.generate(6, seed=1, **{name: 2}), model.generate(6, seed=1, **{name: 2.0}))
    assert not torch.equal(model.generate(6, seed=1, **one), model.generate(6, seed=1, **{name: -0.5}))


def test_tensors_of_codes_are_taken_image_by_image(model):
    given_codes = {"category": torch.tensor([1, 7]), "c2": torch.tensor([-1.0, 2.0]), "c3": torch.tensor([0.5, 0.0])}
    both = model.generate(2, seed=1, **given_codes)
    swapped = model.generate(2, seed=1, **{name: value.flip(0) for name, value in given_codes.items()})
    first = model.generate(2, seed=1, category=1, c2=-1.0, c3=0.5)
    torch.testing.assert_close(both[0], first[0])
    assert not torch.allclose(both[0], swapped[0])


def test_codes_that_are_given_leave_the_others_as_the_seed_has_them(model):
    latent = infogan.draw_latent(3, 62, stream(5, "generate"))
    c2, c3 = latent.continuous.unbind(dim=1)
    everything = model.generate(3, noise=latent.noise, category=latent.category, c2=c2, c3=c3)
    assert torch.equal(model.generate(3, seed=5), everything)
    assert torch.equal(model.generate(3, seed=5, c2=c2), everything)
    assert torch.equal(model.generate(3, seed=5, category=latent.category, c3=c3), everything)


def test_tensors_that_are_given_are_not_changed(model):
    given_values = {"noise": torch.randn(3, 62), "digit": torch.tensor([1, 2, 3]), "c2": torch.rand(3)}
    before = {name: value.clone() for name, value in given_values.items()}
    model.generate(3, **given_values)
    assert all(torch.equal(given_values[name], before[name]) for name in before)


def test_a_digit_is_drawn_by_the_category_that_stands_for_it(permuted):
    for category, digit in enumerate(PERMUTED.tolist()):
        by_digit = permuted.generate(2, seed=1, digit=digit)
        assert torch.equal(by_digit, permuted.generate(2, seed=1, category=category))
    every = permuted.generate(10, seed=1, digit=PERMUTED)
    assert torch.equal(every, permuted.generate(10, seed=1, category=torch.arange(10)))


def test_the_map_of_a_run_is_the_one_its_report_was_made_with(model, smoke_run):
    stored = torch.load(smoke_run.folder / "checkpoint.pt", weights_only=True)["digit_of_category"]
    assert torch.equal(model.digit_of_category, stored)
    assert sorted(stored.tolist()) == list(range(10))


@pytest.mark.parametrize(
    "arguments",
    [
        {"n": 0},
        {"n": -1},
        {"n": 2.0},
        {"n": True},
        {"n": "2"},
        {"n": None},
        {"digit": 10},
        {"digit": -1},
        {"digit": 2.5},
        {"digit": True},
        {"digit": 10**30},
        {"category": 10},
        {"category": -1},
        {"category": 0.0},
        {"n": 2, "digit": torch.tensor([0, 10])},
        {"n": 2, "digit": torch.tensor([0, -1])},
        {"n": 2, "digit": torch.tensor([0.0, 1.0])},
        {"n": 2, "digit": torch.tensor([1, 2, 3])},
        {"n": 2, "category": torch.tensor([1])},
        {"n": 2, "category": torch.tensor([[1, 2]])},
        {"n": 2, "category": torch.tensor([], dtype=torch.long)},
        {"digit": 3, "category": 3},
        {"c2": math.nan},
        {"c2": math.inf},
        {"c3": -math.inf},
        {"n": 2, "c2": torch.tensor([0.0, math.nan])},
        {"n": 2, "c2": torch.zeros(3)},
        {"n": 2, "c3": torch.zeros(1)},
        {"n": 2, "c3": torch.zeros(2, 1)},
        {"n": 2, "noise": torch.zeros(62)},
        {"n": 2, "noise": torch.zeros(1, 62)},
        {"n": 2, "noise": torch.zeros(2, 61)},
        {"n": 2, "noise": torch.zeros(2, 74)},
        {"n": 2, "noise": 0.0},
        {"n": 1, "noise": torch.full((1, 62), math.nan)},
    ],
    ids=lambda arguments: ", ".join(
        f"{name}={tuple(v.shape) if isinstance(v, torch.Tensor) else v}" for name, v in arguments.items()
    ),
)
def test_codes_out_of_range_or_of_another_shape_are_value_errors(model, arguments):
    with pytest.raises(ValueError, match=r"\w"):
        model.generate(**arguments)


# Reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 37])
def test_codes_have_their_shapes_and_probabilities_sum_to_1(model, n):
    codes = model.encode(torch.rand(n, 1, 28, 28))
    assert [tuple(part.shape) for part in codes] == [(n, 10), (n,), (n,)]
    assert torch.equal(codes.c2, codes[1])
    assert codes.c1.min() >= 0
    torch.testing.assert_close(codes.c1.sum(dim=1), torch.ones(n))
    assert all(part.dtype == torch.float32 and not part.requires_grad for part in codes)


def test_reading_is_repeatable_and_looks_at_each_image_alone(model):
    images = torch.rand(6, 1, 28, 28)
    codes = model.encode(images)
    for whole, half in zip(codes, model.encode(images[3:]), strict=True):
        torch.testing.assert_close(whole[3:], half)
    for first, again in zip(codes, model.encode(images), strict=True):
        assert torch.equal(first, again)


def test_c1_is_a_probability_by_category(permuted):
    with torch.no_grad():
        last = permuted.discriminator.head_q[-1]
        weight, bias = last.weight.clone(), last.bias.clone()
        last.weight.zero_()
        last.bias.copy_(torch.arange(12.0))
        codes = permuted.encode(torch.rand(2, 1, 28, 28))
        last.weight.copy_(weight)
        last.bias.copy_(bias)
    torch.testing.assert_close(codes.c1, torch.arange(10.0).softmax(dim=0).expand(2, 10))
    assert (codes.c2.tolist(), codes.c3.tolist()) == ([10, 10], [11, 11])


def test_no_images_have_no_codes(model):
    assert [tuple(part.shape) for part in model.encode(torch.zeros(0, 1, 28, 28))] == [(0, 10), (0,), (0,)]


def test_images_of_double_or_half_precision_are_read(model):
    images = torch.rand(2, 1, 28, 28).half()
    for precise, single in zip(model.encode(images.double()), model.encode(images.float()), strict=True):
        torch.testing.assert_close(precise, single)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(28, 28),
        torch.zeros(2, 28, 28),
        torch.zeros(2, 3, 28, 28),
        torch.zeros(2, 1, 28, 27),
        torch.zeros(2, 784),
        torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
        torch.zeros(2, 1, 28, 28, dtype=torch.bool),
        torch.zeros(2, 1, 28, 28, dtype=torch.complex64),
        torch.full((2, 1, 28, 28), 1.01),
        torch.full((2, 1, 28, 28), -0.01),
        torch.full((2, 1, 28, 28), math.nan),
        torch.full((2, 1, 28, 28), math.inf),
        torch.full((2, 1, 28, 28), 255.0),
    ],
    ids=lambda images: f"{tuple(images.shape)} {images.dtype} {images.flatten()[0]}",
)
def test_images_out_of_range_or_of_another_shape_or_type_are_value_errors(model, images):
    with pytest.raises(ValueError, match=r"images|grey"):
        model.encode(images)


def test_drawing_and_reading_change_no_weight_and_no_statistic(permuted):
    before = [
        value.clone() for part in (permuted.generator, permuted.discriminator) for value in part.state_dict().values()
    ]
    permuted.encode(permuted.generate(8))
    after = [value for part in (permuted.generator, permuted.discriminator) for value in part.state_dict().values()]
    assert all(map(torch.equal, before, after))


def test_a_loaded_model_reads_what_the_run_measured(model, smoke_run):
    data = infogan.load_dataset("drawn", Path(), smoke=True)
    category = model.encode(data.test_images[:, None] / 255).c1.argmax(dim=1)
    found = (model.digit_of_category[category] == data.test_labels).float().mean().item()
    report = json.loads((smoke_run.folder / "report.json").read_text())
    assert found == pytest.approx(report["accuracy"], abs=0.03)  # the run may have read in bfloat16


# What cannot be loaded ------------------------------------------------------------------------------------------


@pytest.fixture
def run(smoke_run, tmp_path):
    """A copy of the smoke run that a test may spoil: replace files, do not write into them."""
    folder = tmp_path / "run-001"
    folder.mkdir()
    for name in ("config.json", "checkpoint.pt"):
        os.link(smoke_run.folder / name, folder / name)
    yield folder
    shutil.rmtree(folder)


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def change_config(run: Path, **changes: object) -> None:
    stored = json.loads((run / "config.json").read_text()) | changes
    replace(run / "config.json", json.dumps({k: v for k, v in stored.items() if v is not ...}).encode())


def assert_refused(run: Path, *words: str) -> None:
    with pytest.raises(BadInput) as error:
        infogan.load(run)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_the_copy_loads_from_a_path_and_from_text(run):
    assert torch.equal(infogan.load(run).generate(seed=1), infogan.load(str(run)).generate(seed=1))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert_refused(tmp_path / "none", str(tmp_path / "none"))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert_refused(tmp_path, str(tmp_path / "config.json"))


def test_a_file_instead_of_a_folder_is_refused(run):
    assert_refused(run / "checkpoint.pt", "checkpoint.pt")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"infogan"', b"[" * 100_000])
def test_a_broken_config_is_refused(run, content):
    replace(run / "config.json", content)
    assert_refused(run, str(run / "config.json"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"script": "gan_mlp"}, "gan_mlp"),
        ({"script": None}, "config.json"),
        ({"noise_size": ...}, "noise_size"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"noise_size": "62"}, "noise_size"),
        ({"noise_size": 62.0}, "noise_size"),
        ({"noise_size": None}, "noise_size"),
        ({"learn_variance": 1}, "learn_variance"),
        ({"noise_size": 63}, "checkpoint.pt"),
        ({"learn_variance": True}, "checkpoint.pt"),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused_by_name(run, changes, named):
    change_config(run, **changes)
    assert_refused(run, named)


def test_a_missing_checkpoint_is_refused(run):
    (run / "checkpoint.pt").unlink()
    assert_refused(run, str(run / "checkpoint.pt"))


@pytest.mark.parametrize("kept", [0, 1, 100, 1_000_000, -1])
def test_a_truncated_checkpoint_is_refused(run, kept):
    with (run / "checkpoint.pt").open("rb") as file:
        content = file.read() if kept < 0 else file.read(kept)
    replace(run / "checkpoint.pt", content[:kept])
    assert_refused(run, str(run / "checkpoint.pt"))


class Accomplice:
    """Unpickling it would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("save", [torch.save, partial(pickle.dump, protocol=2)], ids=["torch.save", "pickle.dump"])
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"averaged": evil}], ids=["bare", "within a dict"])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(run, tmp_path, save, wrap):
    trace = tmp_path / "trace"
    (run / "checkpoint.pt").unlink()
    with (run / "checkpoint.pt").open("wb") as file:
        save(wrap(Accomplice(trace)), file)
    assert_refused(run, str(run / "checkpoint.pt"))
    assert not trace.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: [1, 2],
        lambda content: {},
        lambda content: {**content, "averaged": None},
        lambda content: {**content, "averaged": content["discriminator"]},
        lambda content: {**content, "averaged": {**content["averaged"], "dense.0.weight": torch.zeros(3)}},
        lambda content: {**content, "averaged": {**content["averaged"], "one.more": torch.zeros(3)}},
        lambda content: {**content, "discriminator": dict(list(content["discriminator"].items())[1:])},
        lambda content: {name: value for name, value in content.items() if name != "digit_of_category"},
        lambda content: {**content, "digit_of_category": torch.zeros(10, dtype=torch.long)},
        lambda content: {**content, "digit_of_category": torch.arange(9)},
        lambda content: {**content, "digit_of_category": torch.arange(10).float() + 0.25},
        lambda content: {**content, "digit_of_category": torch.arange(10).view(2, 5)},
        lambda content: {**content, "digit_of_category": "0123456789"},
        lambda content: {**content, "digit_of_category": None},
    ],
    ids=[
        "a list",
        "empty",
        "no generator",
        "another network",
        "another shape",
        "one weight too many",
        "one weight missing",
        "no map",
        "a map to zero",
        "a map of nine",
        "a map to fractions",
        "a map of two rows",
        "a map of text",
        "a map of nothing",
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(run, damage):
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    content = {name: content[name] for name in ("averaged", "discriminator", "digit_of_category")}
    (run / "checkpoint.pt").unlink()
    torch.save(damage(content), run / "checkpoint.pt")
    assert_refused(run, str(run / "checkpoint.pt"))


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """A whole file of tensors, and a place for a damaged one."""
    folder = tmp_path_factory.mktemp("small")
    network = nn.Linear(3, 2)
    torch.save({"network": network.state_dict(), "epoch": 3}, folder / "whole.pt")
    return network, (folder / "whole.pt").read_bytes(), folder / "damaged.pt"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_damaged_file_of_tensors_is_bad_input_or_harmless_and_never_anything_else(small_file, data):
    network, whole, path = small_file
    how = data.draw(st.sampled_from(["cut", "altered", "other"]))
    if how == "cut":
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif how == "altered":
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    else:
        content = data.draw(st.binary(max_size=60))
    path.write_bytes(content)
    with contextlib.suppress(BadInput):
        assert isinstance(read_tensors(path, network=network), dict)
