"""The classifier: trained once and kept, the same bytes each time, and what is scored by it."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from common import BadInput
from common.data import drawn
from common.look import metrics, scorer
from common.look.scorer import SampleScorer, classify, digit_classifier
from tests.helpers import Heard


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A scorer of a few drawn digits, the file that keeps its classifier, and what was said."""
    data, folder, console = drawn(train=256, test=128), tmp_path_factory.mktemp("data"), Heard()
    state = torch.get_rng_state()
    made = SampleScorer(data, folder, console)
    assert torch.equal(torch.get_rng_state(), state)
    [file] = (folder / "classifiers").iterdir()
    return SimpleNamespace(data=data, scorer=made, folder=folder, file=file, said=console.lines)


def test_a_few_hundred_images_are_enough_and_it_is_trained_once(trained):
    assert trained.scorer.accuracy > 0.95
    assert [line.partition(" of ")[0] for line in trained.said] == ["training a classifier"]
    again, images = digit_classifier(trained.data, trained.folder, Heard()), trained.data.test_images
    assert len(trained.said) == 1
    assert torch.equal(classify(again, images).logits, trained.scorer.test.logits)
    assert torch.allclose(classify(again, images[:, None] / 255).logits, trained.scorer.test.logits, atol=1e-5)


def test_training_it_again_gives_the_same_bytes_and_a_damaged_file_is_named(trained, tmp_path):
    digit_classifier(trained.data, tmp_path, Heard())
    [file] = (tmp_path / "classifiers").iterdir()
    assert (file.name, file.read_bytes()) == (trained.file.name, trained.file.read_bytes())
    file.write_bytes(b"not weights")
    with pytest.raises(BadInput, match=f"{file.name}: holds no weights"):
        digit_classifier(trained.data, tmp_path, Heard())


@pytest.mark.parametrize("change", ["images", "recipe", "in the way"])
def test_another_set_or_recipe_has_its_own_file_and_one_in_the_way_is_no_failure(
    trained, monkeypatch, tmp_path, change
):
    monkeypatch.setattr(scorer, "EPOCHS", 1)
    monkeypatch.setattr(scorer, "RECIPE", scorer.RECIPE + (change == "recipe"))
    data, console = dataclasses.replace(trained.data, train_images=trained.data.train_images.clone()), Heard()
    data.train_images[5, 3, 3] ^= change == "images"
    if change == "in the way":
        (tmp_path / "classifiers").write_text("")
    digit_classifier(data, tmp_path, console)
    assert [path.name for path in (tmp_path / "classifiers").glob("*")] != [trained.file.name]
    assert ("can't be kept in" in console.lines[-1]) is (change == "in the way")


def test_real_images_score_as_such_and_a_single_class_does_not(trained):
    judge, x = trained.scorer, trained.data.test_images[:, None] / 255
    assert torch.equal(judge.train_shares, torch.bincount(trained.data.train_labels, minlength=10) / 256)
    features = classify(judge.classifier, trained.data.train_images[:128]).features
    assert judge.floor == pytest.approx(metrics.frechet_distance(features, judge.test.features))
    found = judge.test.logits.argmax(dim=1)
    real, one = judge(x, found), judge(x[found == 3])
    assert real["frechet"] < 1e-3 * judge.floor < 5 * judge.floor < one["frechet"]
    assert [real[f"digit_{label}"] for label in range(10)] == pytest.approx((found.bincount() / 128).tolist())
    assert (one["digit_3"], one["class_total_variation"]) == (1, pytest.approx(1 - judge.train_shares[3].item()))
    assert real["drawn_as_meant"] == 1
    assert "drawn_as_meant" not in one


@pytest.mark.parametrize(("meant", "share"), [([3, 3, 4, 9], 2 / 3), ([9, 9, 9, 9], None)])
def test_only_meant_classes_count_of_which_there_may_be_fewer_than_ten(trained, monkeypatch, meant, share):
    monkeypatch.setattr(trained.scorer, "columns", metrics.SHARES[:9])  # no class is called 9
    threes = trained.data.test_images[trained.scorer.test.logits.argmax(dim=1) == 3]
    scores = trained.scorer(threes[:4, None] / 255, torch.tensor(meant))
    assert scores["drawn_as_meant"] == (share and pytest.approx(share))
    assert "digit_9" not in scores


def test_the_summary_is_that_of_the_scores(trained):
    scores = dict.fromkeys(metrics.SHARES, 0.1) | {"digit_3": 0.05, "digit_8": 0.15, "drawn_as_meant": 0.4}
    scores |= {"frechet": 10.0, "frechet_over_floor": 2.5, "class_total_variation": 0.2, "loss_d": 1.0}
    found = trained.scorer.summary(scores)
    floor, accuracy = trained.scorer.floor, trained.scorer.accuracy
    expected = {"drawn_as_meant": 0.4, "frechet": 10, "frechet_floor": floor, "frechet_over_floor": 2.5}
    expected |= {"class_total_variation": 0.2, "share_smallest": 0.05, "share_largest": 0.15}
    assert found == {**expected, "classifier_accuracy": accuracy}


@pytest.mark.slow
def test_on_a_tenth_of_mnist_it_reaches_98_percent_and_sees_the_known_shares(mnist, tmp_path):
    """On all of it 99.5 %, which every report has as `classifier_accuracy`."""
    parts = {name: tensor[:6000] for name, tensor in vars(mnist).items() if isinstance(tensor, torch.Tensor)}
    judge = SampleScorer(dataclasses.replace(mnist, **parts), tmp_path, Heard())
    assert judge.accuracy >= 0.98
    without_1 = parts["test_images"][parts["test_labels"] != 1]
    scores = judge(without_1[:, None] / 255)
    known = parts["test_labels"].bincount().index_fill(0, torch.tensor(1), 0) / len(without_1)
    assert [scores[f"digit_{label}"] for label in range(10)] == pytest.approx(known.tolist(), abs=0.01)
    assert judge.floor < 0.2 * scores["frechet"]
