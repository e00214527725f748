"""explore.html: the folded generator, the page's size and bytes, and the page itself in a real browser."""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from common.data import drawn
from common.look import codes, explorer
from common.streams import drawing_generator
from infogan import Config, InfoGAN, Latent, draw_latent
from studies.pictures import find_chromium
from tests.browser import Page, chromium, wait_for

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
TITLE = "infogan on <b>drawn digits</b></script>, not MNIST"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


NOISES = torch.cat([draw_latent(1, 62, drawing_generator(seed)).noise for seed in range(3)])


@pytest.fixture(scope="module")
def model() -> InfoGAN:
    """A model whose generator has statistics and factors of its own and draws black, white and grey."""
    torch.manual_seed(7)
    model = InfoGAN(Config())
    model.digit_of_category.copy_(torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7]))
    with torch.no_grad():
        for module in model.ema.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics become those of the next batch
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        pictures = model.ema.train()(draw_latent(500, 62, seeded(7)).joined())
        model.discriminator.train().posterior(model.discriminator.features(pictures))  # has statistics of its own, too
        model.ema.network.upsample[3].weight.mul_(1.2 / pictures.logit().std())
    return model.eval()


@torch.no_grad()
def test_folded_layers_draw_what_the_generator_draws_and_leave_it_alone(model):
    before = {name: value.clone() for name, value in model.ema.state_dict().items()}
    latent = draw_latent(20, 62, seeded(1)).joined()
    dense1, dense2, up1, up2 = explorer.plain_layers(model.ema.network)
    logits = up2(up1(dense2(dense1(latent).relu()).relu().view(-1, 7, 7, 128).permute(0, 3, 1, 2)).relu())
    expected = model.ema(latent)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits.sigmoid(), expected, rtol=0, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.ema.state_dict().items())


# The file ---------------------------------------------------------------------------------------------------------


def inputs(n: int) -> Tensor:
    """Correlated inputs (n, 128), one of which is always zero."""
    x = torch.randn(n, 32, generator=seeded(3)) @ torch.randn(32, 128, generator=seeded(4))
    return x.relu().index_fill(1, torch.tensor(5), 0)


@pytest.mark.parametrize("scale", [1, 0, None])
def test_rounded_weights_are_whole_and_for_given_inputs_bring_the_outputs_closer_on_others_too(scale):
    """Also with a unit, and inputs, that are always zero."""
    weight = (torch.randn(40, 128, generator=seeded()) * torch.logspace(-3, 3, 40)[:, None]).index_fill(
        0, torch.tensor(1), 0
    )
    seen, unseen = inputs(4000).split((3000, 1000))
    q, step = explorer.rounded(weight, 31, None if scale is None else seen.T @ seen * scale)
    assert torch.equal(q, q.round())
    assert q.abs().amax(dim=1).tolist() == [31, 0, *[31] * 38]
    near, near_step = explorer.rounded(weight, 31)
    assert ((near * near_step[:, None] - weight).abs() <= 0.5001 * near_step[:, None]).all()
    error, nearest = (
        (unseen @ (part * by[:, None] - weight).T / by).square().mean() for part, by in ((q, step), (near, near_step))
    )
    assert error < 0.5 * nearest if scale == 1 else error == nearest


def test_bytes_become_characters_that_html_leaves_alone():
    data = bytes(range(256)) * 3
    text = explorer.as_text(data)
    assert all(0x3400 <= ord(character) < 0xB400 for character in text)
    bits = "".join(f"{ord(character) - 0x3400:015b}"[::-1] for character in text)
    assert bytes(int(bits[8 * i : 8 * i + 8][::-1], 2) for i in range(len(data))) == data


def test_the_same_layers_give_the_same_bytes(tmp_path):
    layers = nn.Linear(74, 64), nn.Linear(64, 49 * 32), nn.ConvTranspose2d(32, 16, 4), nn.ConvTranspose2d(16, 1, 4)
    reader = nn.Conv2d(1, 4, 4), nn.Conv2d(4, 4, 4), nn.Linear(196, 8), nn.Linear(8, 8), nn.Linear(8, 12)
    for name in "ab":
        explorer.save_page(tmp_path / name, explorer.Layers(*layers), explorer.Reader(*reader), torch.ones(9, 74), {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture(scope="module")
def page(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "explore.html"
    latents = draw_latent(2000, 62, seeded())
    latents = latents._replace(continuous=2 * latents.continuous).joined()
    run = SimpleNamespace(title=TITLE, epoch=2, data=SimpleNamespace(classes=CLASSES))
    numbers = {f"{code}_{factor}_rank_correlation": 0.1 for code in ("c2", "c3") for factor in codes.FACTORS}
    numbers["c2_slant_rank_correlation"] = numbers["c3_thickness_rank_correlation"] = -0.95
    about = codes.about_page(run, model, numbers, 0.5) | {"noises": NOISES.tolist(), "first": 1}
    layers, reader = explorer.plain_layers(model.ema.network), explorer.plain_reader(model.discriminator)
    explorer.save_page(path, layers, reader, latents, about)
    return path


def test_the_page_is_one_small_file_that_names_no_other(page):
    assert page.stat().st_size <= 15_000_000
    text = page.read_text(encoding="utf-16")
    assert not re.search(r"https?:|//\w|@import|url\(|\ssrc=|href=(?!\"data:,\")", text)
    assert "{{" not in text


# The page in a browser --------------------------------------------------------------------------------------------


# A finger that draws before the networks are unpacked, which must not make an error.
EARLY = """document.addEventListener("DOMContentLoaded", () => {
  const paper = document.querySelector("#paper"), {x, y, width} = paper.getBoundingClientRect();
  const later = window.requestAnimationFrame;
  window.requestAnimationFrame = frame => frame();
  for (const share of [0.3, 0.6]) {
    const at = {buttons: 1, clientX: x + share * width, clientY: y + width / 2};
    paper.dispatchEvent(new PointerEvent("pointermove", at));
  }
  window.requestAnimationFrame = later;
});"""


# All that the large picture is called from now on.
WATCH = """window.seen = [];
const large = document.querySelector("#large"), note = () => seen.push(large.getAttribute("aria-label"));
new MutationObserver(note).observe(large, {attributes: true});"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    executable = find_chromium()
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with chromium(executable, tmp_path_factory.mktemp("profile")) as tab:
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=EARLY)
        yield tab


def resize(tab: Page, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    tab.call("Emulation.setDeviceMetricsOverride", **size)


@pytest.fixture
def opened(tab, page) -> Page:
    """The page, opened anew in a window of usual size."""
    resize(tab, 1200, 800)
    tab.requests.clear()
    tab.errors.clear()
    tab.open(page.as_uri())
    wait_for(lambda: tab.run("!!window.explorer"))
    return tab


def shown(tab: Page) -> tuple[str, np.ndarray]:
    """What the large picture is, in the words that a screen reader gets, and its greys (1, 28, 28)."""
    return tab.run("document.getElementById('large').getAttribute('aria-label')"), greys_of(tab, canvas("#large"))


def greys_of(tab: Page, expression: str) -> np.ndarray:
    """The greys (n, 28, 28) of a JavaScript array of bytes."""
    return np.array(tab.run(f"[...{expression}]")).reshape(-1, 28, 28)


def canvas(selector: str) -> str:
    picture = f"document.querySelector('{selector}').getContext('2d').getImageData(0, 0, 28, 28).data"
    return f"{picture}.filter((_, i) => i % 4 == 0)"


def test_a_click_opens_it_without_error_and_without_network(opened, page):
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.as_uri()]
    assert opened.run("performance.getEntriesByType('resource').length") == 0
    assert opened.run("document.title") == TITLE
    assert "after 2 epochs; c1 names the right class for 50.0%" in opened.run("document.body.textContent")


@torch.no_grad()
@pytest.mark.parametrize(("c2", "c3"), [(0, 0), (-2, 2), (2, -0.35), (0.95, -2), (-1, 1)])
def test_it_draws_what_generate_draws_to_one_grey_level(opened, model, c2, c3):
    noise = torch.randn(62, generator=seeded(round(100 * c2) + 200))
    drawn = greys_of(opened, f"explorer.draw([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], {c2}, {c3}, {noise.tolist()})")
    latent = Latent(noise.expand(10, -1), torch.arange(10), torch.tensor([[c2, c3]]).expand(10, -1))
    expected = (model.ema(latent.joined())[:, 0] * 255).round().numpy()
    assert expected.std() > 30
    assert np.abs(drawn - expected).max() <= 1


def test_it_reads_what_encode_reads_even_from_strokes_of_a_pen(opened, model):
    images = torch.cat((drawn(train=12, test=1).train_images[:, None] / 255, model.generate(4, seed=1)))
    expected = model.encode((images * 255).round() / 255)
    for i, greys in enumerate((images * 255).round().byte().flatten(1).tolist()):
        found = opened.run(f"explorer.read({greys})")
        torch.testing.assert_close(torch.tensor(found["c1"]), expected.c1[i], rtol=0, atol=0.01)
        assert [found["c2"], found["c3"]] == pytest.approx([expected.c2[i].item(), expected.c3[i].item()], abs=0.02)
    assert (greys_of(opened, canvas("#again")) == 0).all()
    opened.click("#paper", 0.1, 0.2)
    wait_for(lambda: greys_of(opened, canvas("#again")).max() > 100)
    assert opened.run("document.querySelector('#read').innerText").count("%") == 10
    bars = "[...document.querySelectorAll('#read div')].slice(-2).map(({children: [, {style}, number]}) =>"
    bars += " [parseFloat(style.marginLeft), parseFloat(style.width), Number(number.textContent.replace('−', '-'))])"
    for start, length, value in opened.run(bars):  # from 0, in the middle, to the value, at most 2
        assert [start, start + length] == pytest.approx(sorted((50, 50 + 25 * min(max(value, -2), 2))), abs=0.2)


def test_the_copied_call_draws_the_same(opened, model):
    opened.click("#noise")
    assert opened.run("explorer.call()").endswith(", c2=0, c3=0, seed=2)")
    large = shown(opened)[1]
    drawn_again = eval(opened.run("explorer.call()"), {"model": model})[0].mul(255).round().numpy()
    assert np.abs(drawn_again - large).max() <= 1


def test_keys_move_the_sliders_and_clicks_pick_and_draw_noise(opened, model):
    name, before = shown(opened)
    assert name == "class T-shirt, c2 slant 0.00, c3 thickness 0.00, seed 1"
    assert opened.run("explorer.noise()") == NOISES[1].tolist()

    opened.run("document.getElementById('c2').focus()")
    opened.press("ArrowRight", 10)
    opened.press("Tab")
    opened.press("Home")
    opened.click("#picks label:nth-child(6)")
    name, after = shown(opened)
    assert name == "class sandal, c2 slant 0.50, c3 thickness −2.00, seed 1"
    sandal = model.digit_of_category.tolist().index(5)
    assert (after == greys_of(opened, f"explorer.draw([{sandal}], 0.5, -2, explorer.noise())")).all()
    assert (after == greys_of(opened, canvas("#picks label:nth-child(6) canvas"))).all()
    assert np.abs(after - before).max() > 20

    opened.press("ArrowRight")  # the group of classes goes by arrow keys, too
    opened.click("#noise")
    assert shown(opened)[0] == "class shirt, c2 slant 0.50, c3 thickness −2.00, seed 2"
    assert opened.run("explorer.noise()") == NOISES[2].tolist()
    opened.click("#noise")
    assert shown(opened)[0].endswith("seed 0")  # round and round

    opened.press("3")  # a digit picks
    assert shown(opened)[0].startswith("class dress, ")
    opened.run(WATCH)  # a sweep is too quick to be asked for
    opened.click("#play")
    wait_for(lambda: opened.run("seen.some(label => /c2 slant −(1\\.[5-9]|2)/.test(label))"))
    opened.click("#reset")
    assert (shown(opened)[1] == before).all()
    ends = opened.run("[...document.querySelectorAll('.ends span')].map(end => end.textContent)")
    assert ends == ["leans right", "leans left", "thick", "thin"]
    assert opened.errors == []


def test_a_screen_reader_finds_every_control_by_name_and_hears_what_changed(opened):
    opened.press("Tab")
    opened.press("ArrowRight")
    now = "class T-shirt, c2 slant 0.05"
    wait_for(lambda: opened.run("document.querySelector('[aria-live=polite]').textContent").startswith(now))
    tree = opened.call("Accessibility.getFullAXTree")["nodes"]
    found = [(node["role"]["value"], node["name"]["value"]) for node in tree if node.get("name", {}).get("value")]
    expected = {("slider", "c2: slant"), ("slider", "c3: thickness"), ("button", "New noise"), ("button", "Reset")}
    assert expected | {("image", f"{now}, c3 thickness 0.00, seed 1")} <= set(found)
    assert [name for role, name in found if role == "radio"] == list(CLASSES)
    assert opened.run("document.getElementById('c2').getAttribute('aria-valuetext')") == "slant 0.05"


@pytest.mark.parametrize(("width", "height"), [(1200, 800), (360, 740)], ids=["desktop", "phone"])
def test_all_of_it_is_to_be_seen_at_any_width(opened, width, height):
    resize(opened, width, height)
    assert opened.run("document.documentElement.scrollWidth") <= width
    boxes = opened.run(
        "[...document.querySelectorAll('input, button, canvas, label')].map(e => e.getBoundingClientRect())"
        ".map(box => [box.left, box.right, box.width, box.height])"
    )
    assert len(boxes) == 2 * 2 + 3 * 10 + 5 + 3
    assert all(0 <= left < right <= width and min(wide, high) > 15 for left, right, wide, high in boxes)
    content = base64.b64decode(opened.call("Page.captureScreenshot", format="png")["data"])
    picture = np.array(Image.open(io.BytesIO(content)).convert("L"))
    assert picture.shape == (height, width)
    assert len(np.unique(picture)) > 50


def test_a_finger_moves_a_slider(opened):
    resize(opened, 390, 844)
    opened.click("#c3", 0.1, 0.2, 0.25)
    assert 0.9 < opened.run("Number(document.getElementById('c3').value)") < 1.2
