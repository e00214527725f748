"""explore.html: the folded generator, the page's size and bytes, and the page itself in a real browser."""

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

from common import explorer, init
from infogan import Generator, Latent, draw_latent, folded
from tests.browser import Page, chromium, find_chromium

LARGEST_FILE = 8_000_000  # bytes


@pytest.fixture(scope="module")
def generator() -> Generator:
    """A generator with BatchNorm statistics and factors of its own, whose pictures have black, white and grey."""
    random = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    generator = Generator(62)
    init.dcgan_(generator)
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics become those of the next batch
                module.weight.uniform_(0.5, 1.5, generator=random)
                module.bias.uniform_(-0.5, 0.5, generator=random)
        pictures = generator.train()(draw_latent(500, 62, random).joined())
        generator.upsample[3].weight.mul_(1.2 / pictures.logit().std())
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


def test_rounding_for_given_inputs_brings_the_outputs_closer_on_other_inputs_too():
    weight = torch.randn(40, 128, generator=torch.Generator().manual_seed(0))
    x = correlated_inputs(4000, 128)
    seen, unseen = x[:3000], x[3000:]

    def error(q: Tensor, step: Tensor) -> float:
        assert torch.equal(q, q.round())
        assert q.abs().max() <= 31
        return (unseen @ (q * step[:, None] - weight).T).square().mean().sqrt().item()

    assert error(*explorer.rounded(weight, 31, seen.T @ seen)) < 0.7 * error(*explorer.rounded(weight, 31))


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
        "picks": [
            [CLASSES[DIGIT_OF_CATEGORY[category]], category] for category in DIGIT_OF_CATEGORY.argsort().tolist()
        ],
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


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-16")


def test_the_page_is_one_small_file_that_names_no_other(page, smoke_run):
    for path in (page, smoke_run.folder / "explore.html"):
        assert path.stat().st_size <= LARGEST_FILE
        text = text_of(path)
        assert not re.search(r"https?:|//\w|@import|url\(|\ssrc=|href=(?!\"data:,\")", text)
        assert "{{" not in text


def test_the_same_generator_gives_the_same_bytes(page, generator, tmp_path):
    write_page(tmp_path / "again.html", generator)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_bytes_become_characters_that_html_leaves_alone():
    data = bytes(range(256)) * 3
    text = explorer.as_text(data)
    assert all(0x3400 <= ord(character) < 0xB400 for character in text)
    bits = "".join(f"{ord(character) - 0x3400:015b}"[::-1] for character in text)
    assert bytes(int(bits[8 * i : 8 * i + 8][::-1], 2) for i in range(len(data))) == data


def test_the_page_of_a_run_says_what_the_report_says(smoke_run):
    about = json.loads(
        re.search(
            r'<script id="about" type="application/json">(.*)</script>', text_of(smoke_run.folder / "explore.html")
        )[1]
    )
    report = json.loads((smoke_run.folder / "report.json").read_text())
    digit_of_category = torch.load(smoke_run.folder / "checkpoint.pt", weights_only=True)["digit_of_category"]
    assert about["title"] == "infogan on drawn digits, not MNIST"
    assert f"{report['epochs']} epochs" in about["subtitle"]
    assert f"{report['accuracy']:.1%}" in about["subtitle"]
    for code in about["codes"]:
        assert report[code["name"]].startswith(code["does"])
        found = f"{report[code['name'] + '_slant_rank_correlation']:+.2f}"
        assert found.replace("-", "−") in code["note"]
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


def test_a_click_opens_it_without_error_and_without_network(opened, page):
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.as_uri()]
    assert opened.run("performance.getEntriesByType('resource').length") == 0
    times = opened.run(
        "Array.from({length: 30}, () => { const t = performance.now(); explorer.update();"
        "return performance.now() - t; })"
    )
    started = opened.run("explorer.started")
    print(
        f"started after {started:.0f} ms; an update takes {min(times):.1f} to {max(times):.1f} ms, "
        f"half of them at most {statistics.median(times):.1f} ms"
    )
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
        expected = (generator(latent.joined())[:, 0] * 255).round().numpy()
        assert expected.std() > 30
        assert np.abs(drawn - expected).max() <= 1


def test_keys_move_the_sliders_and_clicks_pick_and_draw_noise(opened):
    assert shown(opened) == "class T-shirt, c2 slant 0.00, c3 thickness 0.00, first noise"
    before = greys_of(opened, canvas("#large"))
    first = opened.run("[...explorer.noise()]")
    torch.testing.assert_close(torch.tensor(first), FIRST_NOISE)

    opened.run("document.getElementById('c2').focus()")
    opened.press("ArrowRight", 10)
    opened.press("Tab")
    opened.press("Home")
    opened.click("#picks label:nth-child(6)")
    one_frame(opened)
    assert shown(opened) == "class sandal, c2 slant 0.50, c3 thickness −2.00, first noise"
    sandal = int((DIGIT_OF_CATEGORY == 5).nonzero())
    after = greys_of(opened, canvas("#large"))
    assert (after == greys_of(opened, f"explorer.draw([{sandal}], 0.5, -2, explorer.noise())")).all()
    assert (after == greys_of(opened, canvas("#picks label:nth-child(6) canvas"))).all()
    assert np.abs(after - before).max() > 20

    opened.press("ArrowRight")  # the group of digits goes by arrow keys, too
    opened.click("#noise")
    one_frame(opened)
    assert shown(opened) == "class shirt, c2 slant 0.50, c3 thickness −2.00, noise 1"
    noise = np.array(opened.run("[...explorer.noise()]"))
    assert len(noise) == 62
    assert abs(noise.mean()) < 0.5
    assert 0.7 < noise.std() < 1.3
    opened.click("#noise")
    one_frame(opened)
    assert opened.run("[...explorer.noise()]") != noise.tolist()

    opened.click("#reset")
    one_frame(opened)
    assert (greys_of(opened, canvas("#large")) == before).all()
    assert opened.errors == []


def test_a_screen_reader_finds_every_control_by_name_and_hears_what_changed(opened):
    opened.press("Tab")
    opened.press("ArrowRight")
    opened.wait_for(
        "document.querySelector('[aria-live=polite]').textContent.startsWith('class T-shirt, c2 slant 0.05')"
    )
    tree = opened.call("Accessibility.getFullAXTree")["nodes"]
    found = [(node["role"]["value"], node["name"]["value"]) for node in tree if node.get("name", {}).get("value")]
    expected = {("slider", "c2: slant"), ("slider", "c3: thickness"), ("button", "New noise"), ("button", "Reset")}
    assert expected <= set(found)
    assert [name for role, name in found if role == "radio"] == list(CLASSES)
    assert ("image", "class T-shirt, c2 slant 0.05, c3 thickness 0.00, first noise") in found
    assert opened.run("document.getElementById('c2').getAttribute('aria-valuetext')") == "slant 0.05"


@pytest.mark.parametrize(("width", "height"), [(1200, 800), (360, 740)], ids=["desktop", "phone"])
def test_all_of_it_is_to_be_seen_at_any_width(opened, width, height):
    opened.resize(width, height, mobile=width < 500)
    assert opened.run("document.documentElement.scrollWidth") <= width
    boxes = opened.run(
        "[...document.querySelectorAll('input, button, canvas, label')].map(e => e.getBoundingClientRect())"
        ".map(box => [box.left, box.right, box.width, box.height])"
    )
    assert len(boxes) == 2 * 2 + 3 * 10 + 2 + 1
    for left, right, wide, high in boxes:
        assert 0 <= left < right <= width
        assert min(wide, high) > 15
    picture = np.array(Image.open(io.BytesIO(opened.screenshot())).convert("L"))
    assert picture.shape == (height, width)
    assert len(np.unique(picture)) > 50


def test_a_finger_moves_a_slider(opened):
    opened.resize(390, 844, mobile=True)
    opened.call("Emulation.setTouchEmulationEnabled", enabled=True)
    opened.run("document.getElementById('c3').scrollIntoView({block: 'center'})")
    x, y, width = opened.run(
        "(() => { const b = document.getElementById('c3').getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2, b.width]; })()"
    )
    opened.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    for part in (0.1, 0.2, 0.25):
        opened.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x + part * width, "y": y}])
    opened.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    one_frame(opened)
    opened.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert 0.9 < opened.run("Number(document.getElementById('c3').value)") < 1.2
