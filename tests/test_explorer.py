"""explore.html: the folded generator, the page's size and bytes, and the page itself in a real browser."""

import base64
import dataclasses
import io
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import infogan
from common import explorer
from infogan import Config, Generator, Latent, draw_latent, folded
from tests.browser import Page, chromium, find_chromium

LARGEST_FILE = 8_000_000  # bytes


@pytest.fixture(scope="module")
def generator() -> Generator:
    """A generator with BatchNorm statistics and factors of its own, whose pictures have black, white and grey."""
    random = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    generator = Generator(62)
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics become those of the next batch
                module.weight.uniform_(0.5, 1.5, generator=random)
                module.bias.uniform_(-0.5, 0.5, generator=random)
        generator.upsample[3].weight.mul_(6)
        generator.train()(draw_latent(500, 62, random).joined())
    return generator.eval()


@torch.no_grad()
def test_folded_layers_draw_what_the_generator_draws(generator):
    latent = draw_latent(20, 62, torch.Generator().manual_seed(1)).joined()
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = folded(generator)
    small = F.linear(F.linear(latent, w1, b1).relu(), w2, b2).relu().view(-1, 7, 7, 128).permute(0, 3, 1, 2)
    logits = F.conv_transpose2d(F.conv_transpose2d(small, w3, b3, 2, 1).relu(), w4, b4, 2, 1)
    expected = generator(latent)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits.sigmoid(), expected, rtol=0, atol=1e-4)


def test_folding_leaves_the_generator_alone(generator):
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    folded(generator)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert not generator.training


# Rounding ---------------------------------------------------------------------------------------------------------


def correlated_inputs(n: int, inputs: int) -> Tensor:
    random = torch.Generator().manual_seed(3)
    return (torch.randn(n, inputs // 4, generator=random) @ torch.randn(inputs // 4, inputs, generator=random)).relu()


def test_rounded_weights_are_whole_within_bounds_and_within_half_a_step():
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 40)[:, None]
    q, step = explorer.rounded(weight, 127)
    assert torch.equal(q, q.round())
    assert q.abs().amax(dim=1).tolist() == [127] * 40
    assert ((q * step[:, None] - weight).abs() <= 0.5001 * step[:, None]).all()


def test_rounding_for_given_inputs_halves_the_error_of_the_outputs_on_other_inputs():
    weight = torch.randn(40, 128, generator=torch.Generator().manual_seed(0))
    x = correlated_inputs(4000, 128)
    seen, unseen = x[:3000], x[3000:]

    def error(q: Tensor, step: Tensor) -> float:
        assert torch.equal(q, q.round())
        assert q.abs().max() <= 31
        return (unseen @ (q * step[:, None] - weight).T).square().mean().sqrt().item()

    assert error(*explorer.rounded(weight, 31, seen.T @ seen)) < 0.5 * error(*explorer.rounded(weight, 31))


def test_rounding_copes_with_units_and_inputs_that_are_always_zero():
    weight = torch.randn(4, 64)
    weight[1] = 0
    x = correlated_inputs(100, 64)
    x[:, 5] = 0
    for gram in (x.T @ x, torch.zeros(64, 64)):
        q, step = explorer.rounded(weight, 31, gram)
        assert q.isfinite().all()
        assert step.isfinite().all()
        assert not q[1].any()


def test_interleaved_weights_lie_in_blocks_of_outputs_and_pairs_of_inputs():
    q = torch.arange(40 * 6).view(40, 6)
    laid = explorer.interleaved(q)
    assert laid.shape == (2, 3, 32, 2)
    assert laid[1, 2, 3].tolist() == q[35, 4:].tolist()
    assert not laid[1, :, 8:].any()


# The file ---------------------------------------------------------------------------------------------------------

DIGIT_OF_CATEGORY = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
FIRST_NOISE = draw_latent(1, 62, torch.Generator().manual_seed(11)).noise[0]


def write_page(path: Path, generator: Generator) -> None:
    latents = draw_latent(2000, 62, torch.Generator().manual_seed(0))
    latents = latents._replace(continuous=2 * latents.continuous).joined()
    about = {
        "title": "infogan on <b>drawn digits</b>, not MNIST",
        "subtitle": "after 2 epochs </script>",
        "kind": "class",
        "picks": [[CLASSES[DIGIT_OF_CATEGORY[category]], category] for category in DIGIT_OF_CATEGORY.argsort().tolist()],
        "codes": [
            {"name": "c2", "does": "slant", "note": "rank correlation: slant +0.68"},
            {"name": "c3", "does": "thickness", "note": "rank correlation: thickness +0.60"},
        ],
        "noise": FIRST_NOISE.tolist(),
    }
    explorer.save_page(path, folded(generator), latents, about)


@pytest.fixture(scope="module")
def page(generator, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "explore.html"
    write_page(path, generator)
    return path


def test_the_page_is_one_small_file_that_names_no_other(page, smoke_run):
    for path in (page, smoke_run.folder / "explore.html"):
        assert path.stat().st_size <= LARGEST_FILE
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?:|//\w|@import|url\(|\ssrc=|href=(?!\"data:,\")", text)
        assert "{{" not in text


def test_the_same_generator_gives_the_same_bytes(page, generator, tmp_path):
    write_page(tmp_path / "again.html", generator)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_the_page_of_a_run_says_what_the_report_says(smoke_run):
    text = (smoke_run.folder / "explore.html").read_text(encoding="utf-8")
    about = json.loads(re.search(r'<script id="about" type="application/json">(.*)</script>', text)[1])
    report = json.loads((smoke_run.folder / "report.json").read_text())
    digit_of_category = torch.load(smoke_run.folder / "checkpoint.pt", weights_only=True)["digit_of_category"]
    assert about["title"] == "infogan on drawn digits, not MNIST"
    assert f"{report['epochs']} epochs" in about["subtitle"]
    assert f"{report['accuracy']:.1%}" in about["subtitle"]
    for code in about["codes"]:
        assert report[code["name"]].startswith(code["does"])
        assert f"{report[code['name'] + '_slant_rank_correlation']:+.2f}" in code["note"]
    assert [name for name, _ in about["picks"]] == list("0123456789")
    assert all(digit_of_category[category] == int(name) for name, category in about["picks"])


# The page in a browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    executable = find_chromium()
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with chromium(executable, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def opened(tab, page) -> Page:
    """The page, opened anew in a window of usual size, without a complaint and without a request but for itself."""
    return open_page(tab, page)


def open_page(tab: Page, path: Path) -> Page:
    tab.resize(1200, 800)
    tab.requests.clear()
    tab.errors.clear()
    tab.open(path.as_uri())
    tab.wait_for("!!window.explorer")
    return tab


def shown(tab: Page) -> str:
    """What the large picture is, in the words that a screen reader gets."""
    return tab.run("document.getElementById('large').getAttribute('aria-label')")


def greys_of(tab: Page, expression: str) -> np.ndarray:
    """The greys (n, 28, 28) of a JavaScript array of bytes."""
    return np.array(tab.run(f"[...{expression}]")).reshape(-1, 28, 28)


def canvas(selector: str) -> str:
    picture = f"document.querySelector('{selector}').getContext('2d').getImageData(0, 0, 28, 28).data"
    return f"{picture}.filter((_, i) => i % 4 == 0)"


def one_frame(tab: Page) -> None:
    tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")


def test_a_click_opens_it_without_error_and_without_network(opened, page, record_property):
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.as_uri()]
    assert opened.run("performance.getEntriesByType('resource').length") == 0
    times = opened.run("Array.from({length: 30}, () => { const t = performance.now(); explorer.update();"
                       "return performance.now() - t; })")
    started = opened.run("explorer.started")
    print(f"started after {started:.0f} ms; an update takes {min(times):.1f} to {max(times):.1f} ms, "
          f"half of them at most {statistics.median(times):.1f} ms")
    assert opened.run("document.title") == "infogan on <b>drawn digits</b>, not MNIST"


def test_the_page_of_a_run_opens(tab, smoke_run):
    open_page(tab, smoke_run.folder / "explore.html")
    assert tab.errors == []
    assert shown(tab).startswith("digit 0, c2 ")


@torch.no_grad()
def test_it_draws_what_generate_draws_to_one_grey_level(opened, generator):
    random = torch.Generator().manual_seed(2)
    for c2, c3 in ((0, 0), (-2, 2), (2, -0.35), (0.95, -2), (-1, 1)):
        noise = torch.randn(62, generator=random)
        drawn = greys_of(opened, f"explorer.draw([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], {c2}, {c3}, {noise.tolist()})")
        latent = Latent(noise.expand(10, -1), torch.arange(10), torch.tensor([[c2, c3]]).expand(10, -1))
        expected = (generator(latent.joined())[:, 0] * 255).numpy()
        assert expected.std() > 30
        assert np.abs(drawn - expected).max() <= 1
