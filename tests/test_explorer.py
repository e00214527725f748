"""explore.html: the packed file, and the page in a real browser against PyTorch."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import infogan
from common.data import render_digits
from common.data.inputs import sampling_generator
from common.explorer import pack
from common.run.config import ROOT
from infogan import Config, InfoGAN
from studies.pictures import find_chromium
from tests.browser import TWO_FRAMES, Page, chromium, wait_for

CLASSES = ("T-shirt", "trouser", "pullover", "D", "coat", "sandal", "shirt", "sneaker", "bag", "b</script>oot")
CATEGORIES = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]  # of the classes
TITLE = "infogan on <b>digits</b></script> $& {{weights}}"
LABEL = "document.querySelector('#large').ariaLabel"  # what the large picture is, for a screen reader
CODE = {"ends": ["low", "high"], "note": "rank correlation $&</p>"}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return render_digits(train=80, test=1).train_images[:, None] / 255


@pytest.fixture(scope="module")
def model(images) -> InfoGAN:
    """An untrained model with BatchNorm statistics and factors of its own, whose images are black, white and grey."""
    torch.manual_seed(7)
    model = InfoGAN(Config()).train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics become those of the next batch
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.weight[0] = 0  # a unit without weights
        generated = model.ema(model.sample_latent(500, torch.Generator().manual_seed(7)).joined(10))
        model.ema.upsample[3].weight.mul_(1.2 / generated.logit().std())
        means = model.discriminator.posterior(model.discriminator.features(images)).mean
        model.discriminator.head_q[3].weight[-2:].mul_(0.1 / means.std())  # random layers amplify what rounding does
        model.discriminator.head_q[3].bias[0] = -9  # so that no image is in the first category
    return model.eval()


def save_page(path: Path, model: InfoGAN, picks: list[tuple[str, int]]) -> None:
    about = {"title": TITLE, "subtitle": "after 2 epochs", "kind": "class", "first": 1, "run": TITLE, "picks": picks}
    codes = [{"name": "c2", "does": "slant"}, {"name": "c3", "does": "thickness"}][: model.config.continuous]
    about |= {"codes": [CODE | code for code in codes], "example": [0] * 300 + [200] * 84 + [0] * 400}
    about |= {"noises": [model.sample_latent(1, sampling_generator(seed)).noise[0].tolist() for seed in range(3)]}
    pack.save_page(path, model.ema, model.discriminator, about)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory) -> Path:
    path, again = (tmp_path_factory.mktemp("page") / "explore.html" for _ in range(2))
    for one in (path, again):
        save_page(one, model, list(zip(CLASSES, CATEGORIES, strict=True)))
    assert path.read_bytes() == again.read_bytes()  # so the networks were left as they are, too
    return path


def test_the_file_is_small_and_names_no_other(path):
    assert path.stat().st_size <= 14_000_000
    text = path.read_text(encoding="utf-16")
    assert not re.search(r"https?:|//\w|@import|url\(|\ssrc=|href=(?!\"data:,\")", text)


def test_packed_weights_come_back_within_half_a_step():
    weight, bias = torch.arange(240.0).sin().view(40, 6), torch.arange(40.0).cos()
    packed, counts = pack.pack({"dense": (weight, bias)})
    assert counts == {"dense": [64, 6, 40]}  # in groups of 32 units
    layer = np.dtype([("bias", "<f4", 40), ("step", "<f4", 64), ("high", "i1", 384), ("low", "u1", 192)])
    [(packed_bias, step, high, low)] = np.frombuffer(zlib.decompress(packed, wbits=-15), layer)
    q = 16 * high.astype(int) + np.stack((low & 15, low >> 4), axis=1).ravel()
    found = q.reshape(-1, 6, 32).swapaxes(1, 2).reshape(64, 6)[:40]
    assert (np.abs(found * step[:40, None] - weight.numpy()) <= 0.5001 * step[:40, None]).all()
    assert (set(np.abs(found).max(axis=1)), packed_bias.tolist()) == ({pack.LARGEST["dense"]}, bias.tolist())


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    executable = find_chromium()
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with chromium(executable, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def page(tab, path):
    """The page, just opened in a window of usual size. It must not ask for anything or complain."""
    tab.resize(1200, 800)
    tab.requests.clear()
    tab.errors.clear()
    tab.open(path.as_uri())
    wait_for(lambda: tab.run("!!window.explorer"))
    yield tab
    assert tab.errors == []
    assert {url for url in tab.requests if not url.startswith("data:")} == {path.as_uri()}


def greys(tab: Page, source: str) -> np.ndarray:
    """The greys (n, 28, 28) of a JavaScript array of bytes, or of a canvas ("#large") while pixels are shown."""
    if source.startswith("#"):
        tab.run(f"c = document.querySelector('{source}'), middle = x => x % (c.width / 28) == c.width / 56")
        tab.run(f"pixels.checked || pixels.click(), {TWO_FRAMES}")
        rgba = "c.getContext('2d').getImageData(0, 0, c.width, c.width).data"
        source = f"{rgba}.filter((_, i) => i % 4 == 0).filter((_, i) => middle(i % c.width) && middle(i / c.width | 0))"
    return np.array(tab.run(f"[...{source}]")).reshape(-1, 28, 28)


def difference(found: np.ndarray, expected: torch.Tensor) -> float:
    """The largest in grey levels."""
    return np.abs(found - expected[:, 0].mul(255).round().numpy()).max()


def predictions(tab: Page) -> list[tuple[str, float]]:
    """Name and number of each category, in percent, then of each code."""
    rows = "[...document.querySelectorAll('#predictions div')].map(row => [...row.children].map(e => e.textContent))"
    return [(name, float(text.strip(" %").replace("−", "-"))) for name, _, text in tab.run(rows)]


def test_it_generates_what_pytorch_generates_to_two_grey_levels(page, model):
    random = torch.Generator().manual_seed(1)
    for c2, c3 in [(0.0, 0.0), (-2.0, 2.0), (2.0, 2.0), *(torch.rand(27, 2, generator=random) * 4 - 2).tolist()]:
        noise = torch.randn(1, 62, generator=random)
        found = greys(page, f"explorer.generate([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [{c2}, {c3}], {noise[0].tolist()})")
        expected = model.generate(10, category=torch.arange(10), c2=c2, c3=c3, noise=noise.expand(10, -1))
        assert expected.std() > 0.12
        assert difference(found, expected) <= 2


def test_it_predicts_what_encode_predicts_to_two_hundredths(page, model, images):
    images = (torch.cat((images, model.generate(20, seed=1))) * 255).round()
    found = page.run(f"{images.int().flatten(1).tolist()}.map(explorer.encode)")
    for name, expected in zip(("c1", "codes"), model.encode(images / 255), strict=True):
        torch.testing.assert_close(torch.tensor([codes[name] for codes in found]), expected, rtol=0, atol=0.02)


def test_sliders_keys_and_buttons_do_what_they_say(page, model, monkeypatch, tmp_path):
    text = page.run("document.querySelector('main').textContent")
    assert all(part in text for part in (TITLE, "after 2 epochs", "New noise", "beyond the blue range", CLASSES[-1]))
    speaking = "document.querySelectorAll('output, [role=status], [aria-live]').length"
    assert page.run(f"[document.title, c2.labels[0].title, {speaking}]") == [TITLE, CODE["note"], 1]
    before, own = greys(page, "#large"), greys(page, "#generated")
    page.run("document.querySelector('#c2').focus()")
    page.press("ArrowRight", 10)
    page.press("Tab")
    page.press("Home")
    page.click("#picks label:nth-child(6)")
    assert page.run(LABEL) == "sandal, c2 slant 0.50, c3 thickness −2.00, seed 1"
    page.press("d")  # a name of one character picks
    page.click("#noise")
    assert page.run(LABEL) == "D, c2 slant 0.50, c3 thickness −2.00, seed 2"
    assert (greys(page, "#generated") != own).any()
    page.run("navigator.clipboard.writeText = async text => { window.copied = text; }")
    page.click("#copy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(infogan, "load", {TITLE: model}.get)
    exec(page.run("copied"), {})
    with Image.open("D.png") as picture:
        assert np.abs(greys(page, "#large") - np.array(picture)[:, :, 0].astype(int)).max() <= 2
    page.click("#play")
    wait_for(lambda: re.search("slant 1.[5-9]", page.run(LABEL)))
    page.click("#play")  # stops, and the sliders are where they were
    assert page.run(LABEL) == "D, c2 slant 0.50, c3 thickness −2.00, seed 2"
    page.click("#reset")
    assert page.run(LABEL) == "T-shirt, c2 slant 0.00, c3 thickness 0.00, seed 1"
    assert (greys(page, "#large") == before).all()


def test_the_field_moves_both_codes_and_the_address_brings_them_back(page):
    page.drag("#room", (0.5, 0.5), (0.75, 0.625))
    page.press("ArrowDown", 2)
    page.run("Object.assign(text, {value: 'd-d'}).dispatchEvent(new Event('input'))")
    last, shown = greys(page, "#picks label:last-child canvas"), page.run(LABEL)
    assert shown == "T-shirt, c2 slant 1.00, c3 thickness −0.70, seed 1"
    wait_for(lambda: "text=d-d" in page.run("location.hash"))
    for address in ("about:blank", page.run("location.href")):
        page.open(address)
    wait_for(lambda: page.run("!!window.explorer") and page.run(LABEL) == shown)
    assert (greys(page, "#picks label:last-child canvas") == last).all()
    page.run("HTMLAnchorElement.prototype.click = function () { saved = [this.download, this.href.slice(0, 14)]; }")
    page.click("#save-line")
    assert page.run("[skipped.textContent.at(-1), ...saved]") == ["-", "d-d.png", "data:image/png"]
    page.run("location.hash = '#pick=bag&c2=1e9&c3=x&seed=length'")  # what no page wrote
    wait_for(lambda: page.run(LABEL) == "bag, c2 slant 2.00, c3 thickness 0.00, seed 1")


def test_a_drawing_or_a_pasted_negative_of_it_is_encoded_and_generated(page, model):
    assert greys(page, "#generated").any()  # there is a digit at the start
    page.drag("#paper", (0.3, 0.2), (0.6, 0.3), (0.5, 0.5), (0.4, 0.8), touch=True)
    wait_for(lambda: page.run("document.querySelector('#status').textContent").startswith("In your drawing it sees"))
    names, drawn = zip(*predictions(page), strict=True)
    assert names == (*CLASSES, "c2 slant", "c3 thickness")
    assert sum(drawn[:10]) == pytest.approx(100, abs=5)
    best = CATEGORIES[max(range(10), key=lambda i: drawn[i])]
    expected = model.generate(category=best, c2=drawn[10], c3=drawn[11], seed=1)
    assert difference(greys(page, "#generated"), expected) <= 3  # codes are shown with two decimals
    page.run("""(async () => {
      const negative = new OffscreenCanvas(240, 240), clipboardData = new DataTransfer();
      Object.assign(negative.getContext("2d"), {filter: "invert(1)"}).drawImage(paper, -20, -20);
      element("clear").click();
      clipboardData.items.add(new File([await negative.convertToBlob()], "digit.png", {type: "image/png"}));
      dispatchEvent(new ClipboardEvent("paste", {clipboardData}));
    })()""")
    wait_for(lambda: greys(page, "#generated").any())
    assert [number for _, number in predictions(page)] == pytest.approx(drawn, abs=0.03)
    page.click("#send")
    drawing, codes = page.run("[[...centre(paper)], chosen()[1]]")
    assert codes == pytest.approx([max(-2, min(2, value)) for value in drawn[10:]], abs=0.03)
    made = [model.generate(category=best, c2=codes[0], c3=codes[1], seed=seed).flatten() * 255 for seed in range(3)]
    nearest = min(range(3), key=lambda seed: (made[seed] - torch.tensor(drawing)).square().sum())
    assert page.run(LABEL).endswith(f"seed {nearest}")
    page.run("paper.focus()")
    page.press("Delete")
    assert not greys(page, "#generated").any()
    for key, times in ((" ", 1), ("ArrowDown", 9), (" ", 1), ("ArrowRight", 9)):  # lowers the pen, lifts it
        page.press(key, times)
    assert page.run("[140, 230].map(x => pen.getImageData(x, 230, 1, 1).data[0])") == [255, 0]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (360, 740)], ids=["desktop", "phone"])
def test_all_of_it_can_be_seen_and_a_slider_dragged_at_any_width(page, width, height):
    page.resize(width, height)
    assert page.run("document.documentElement.scrollWidth") <= width
    rectangles = "[...document.querySelectorAll('input, button, canvas, label')].map(e => e.getBoundingClientRect())"
    boxes = page.run(f"{rectangles}.map(box => [box.left, box.right, box.width, box.height])")
    assert len(boxes) == 2 * 4 + 3 * 10 + 8 + 4
    assert all(0 <= left < right <= width and min(wide, high) > 15 for left, right, wide, high in boxes)
    assert width < 500 or page.run("document.documentElement.scrollHeight") <= height  # the drawing is in sight
    page.drag("#c3", (0.5, 0.5), (0.75, 0.5), touch=width < 500)
    assert 0.9 < page.run("Number(document.querySelector('#c3').value)") < 1.2


def test_tracks_and_bars_stay_with_forced_colours(page):
    page.call("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])
    styles = "['body', '#c2', '#room i', '#predictions i'].map(name => getComputedStyle(document.querySelector(name)))"
    (_, paper), *found = page.run(f"{styles}.map(style => [style.forcedColorAdjust, style.backgroundColor])")
    assert all(adjust == "none" and colour != paper for adjust, colour in found)
    page.call("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize(("categories", "continuous"), [(2, 0), (30, 1)])
def test_it_opens_for_other_numbers_of_categories_and_codes(tab, tmp_path, categories, continuous):
    model = InfoGAN(Config(categories=categories, continuous=continuous)).eval()
    save_page(tmp_path / "page.html", model, [(f"category {number}", number) for number in range(categories)])
    tab.open((tmp_path / "page.html").as_uri())
    wait_for(lambda: tab.run("!!window.explorer && !stale.size"))
    expected = model.generate(category=categories - 1, continuous=torch.zeros(1, continuous), seed=1)
    assert difference(greys(tab, f"#picks label:nth-child({categories}) canvas"), expected) <= 2
    assert (len(predictions(tab)), tab.errors) == (min(categories, 10) + continuous, [])


def test_the_demo_of_the_pages_draws_and_recognises_digits(tab):
    demo = ROOT / "docs" / "explore.html"
    assert demo.stat().st_size < 14e6
    tab.open(demo.as_uri())
    wait_for(lambda: tab.run("!!window.explorer && !stale.size"))
    before = greys(tab, "#large")
    tab.drag("#c3", (0.5, 0.5), (0.75, 0.5))
    assert greys(tab, "#large").sum() > 1.2 * before.sum()  # thicker
    for digit, stroke in {"1": [(0.5, 0.1), (0.5, 0.9)], "7": [(0.28, 0.2), (0.72, 0.2), (0.4, 0.82)]}.items():
        tab.click("#clear")
        tab.drag("#paper", *stroke)
        assert max(predictions(tab)[:10], key=lambda row: row[1])[0] == digit
    assert tab.errors == []
