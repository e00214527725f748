"""Fields: their types and limits, presets, config.json there and back."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import autoencoder
import gan_mlp
import infogan
from common import BadInput
from common.run import Run
from common.settings import ACTIONS, PROVENANCE, ROOT, as_stored, batch_ends, epochs_of, flag, read_config

CONFIGS = {module.Config.SCRIPT: module.Config for module in (autoencoder, gan_mlp, infogan)}
EACH = pytest.mark.parametrize("config_class", CONFIGS.values(), ids=CONFIGS)
NAN, INF = float("nan"), float("inf")
DECIDED = {"dataset": "drawn", "device": "cpu", "precision": "float32"}

# What no field of a type takes, and what some fields don't.
BY_TYPE = {
    int: (None, 2.5, "3", True, NAN, 10**400),
    float: (None, "fast", True, NAN, INF, -INF),
    bool: (None, 1, "yes"),
    str: (None, 3),
    tuple: (None, (), 8, [8], (8, 8.0), (8, "8"), (True,), (8, 0), (8, 8193)),
}
BY_NAME = {
    **{"epochs": (0, 100_001), "batch_size": (1, 1_000_001), "seed": (-1, 2**32), "shift": (-1, 15)},
    **{"noise_size": (0, 4097), "hidden": (0, 784), "hidden_bias": (-101, 101), "decay_from": (-0.1, 1.1)},
    **dict.fromkeys(("learning_rate", "learning_rate_sgd", "learning_rate_d", "learning_rate_g"), (-1, 2)),
    **dict.fromkeys(("info_weight", "continuous_weight", "guide_weight"), (-1, 1001)),
    **{"leak": (-0.1, 1.1), "beta1": (-0.1, 1), "average": (-0.1, 1)},
    **{"device": ("tpu", "", None), "precision": ("float16", None), "optimizer": ("rmsprop", None)},
}
FIELDS = [(script, field) for script in CONFIGS for field in dataclasses.fields(CONFIGS[script])]


@pytest.mark.parametrize(("script", "field"), FIELDS, ids=[f"{script} {field.name}" for script, field in FIELDS])
def test_a_field_of_another_type_or_out_of_its_limits_is_named(script, field):
    by_type = BY_TYPE.get(type(field.default), ()) if field.type != Path | None else ()
    for value in (*by_type, *BY_NAME.get(field.name, ())):
        with pytest.raises(BadInput, match=f"^{flag(field.name)} must be .{{,150}}$"):
            CONFIGS[script](**{field.name: value})


@pytest.mark.parametrize(
    ("batch_size", "images", "ends"),
    [(50, 150, [50, 100]), (50, 152, [50, 100, 150]), (50, 151, [50, 100]), (127, 128, []), (128, 127, [])],
)
def test_every_batch_of_an_epoch_has_two_images_or_more(batch_size, images, ends):
    """One image over joins the batch before it; the default becomes that of a smaller set."""
    assert batch_ends(autoencoder.Config(batch_size=batch_size), images) == ends


LENGTHS = [(60_000, 30, 30), (20_000, 30, 30), (8_000, 30, 75), (1_540, 30, 390), (100, 30, 600), (100, 31, 31)]


@pytest.mark.parametrize(("images", "epochs", "expected"), LENGTHS)
def test_a_small_set_gets_more_epochs_where_none_are_chosen(images, epochs, expected):
    assert epochs_of(autoencoder.Config(epochs=epochs), images) == expected


def test_a_chosen_batch_size_above_the_set_is_refused_before_a_download(tmp_path, out):
    config = autoencoder.Config(batch_size=60_001, data_dir=tmp_path, out=out, dataset="mnist")
    with pytest.raises(BadInput, match="--batch-size 60001 is larger than the training set of 60000 images"):
        Run(config)


@pytest.mark.parametrize("field", ["data_dir", "out", "resume"])
def test_a_path_may_be_text_and_begin_with_a_tilde(field, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert getattr(autoencoder.Config(**{field: "~/a b"}), field) == tmp_path / "a b"
    with pytest.raises(BadInput, match=field.replace("_", ".")):
        autoencoder.Config(**{field: 3})


def test_a_config_is_made_in_python_as_on_the_shell():
    config = infogan.Config.make(smoke=True, paper=True, seed=3)
    assert (config.epochs, config.batch_size, config.guide_weight, config.seed) == (2, 64, 0.0, 3)
    assert infogan.Config.make(smoke=False) == infogan.Config()


def store(folder: Path, config: object, **changes: object) -> Path:
    """Write the config.json of a run, with changes; `...` removes a field."""
    content = {name: value for name, value in (as_stored(config, **DECIDED) | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(content, default=str), encoding="utf-8")
    return folder


@EACH
def test_what_is_stored_is_every_field_as_decided_and_where_the_run_comes_from(config_class, monkeypatch, tmp_path):
    """No path in it is followed: a stranger's config.json could name any folder."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / "my copy.py"), "--out", "my outputs"])
    monkeypatch.chdir(tmp_path)
    config = config_class(seed=7, out=tmp_path, data_dir=tmp_path, quiet=True)
    stored = as_stored(config, **DECIDED)
    assert stored.keys() == {field.name for field in dataclasses.fields(config)} - {*ACTIONS} | {*PROVENANCE}
    assert stored.items() >= (DECIDED | {"seed": 7, "script": config_class.SCRIPT}).items()
    assert shlex.split(stored["command"]) == sys.argv
    assert stored["versions"].keys() == {"python", "torch", "torchvision", "numpy", "scipy", "matplotlib"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", stored["started"])
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert stored["git_commit"] == (git.stdout.strip() or None)
    again = read_config(store(tmp_path, config), config_class)
    assert again == config_class(**DECIDED, seed=7)
    assert (again.out, again.data_dir) == (ROOT / "outputs", ROOT / "data")
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without git
    monkeypatch.setattr(sys, "argv", ["/usr/lib/ipykernel_launcher.py", "-f", "kernel.json"])  # and a notebook
    assert [as_stored(config)[name] for name in ("git_commit", "command")] == [None, None]


def test_whole_numbers_of_json_are_floats_where_a_float_belongs_and_lists_are_tuples(tmp_path):
    config = read_config(store(tmp_path, gan_mlp.Config(), leak=0, widths_g=[3, 4]), gan_mlp.Config)
    assert (config.widths_g, config.leak, type(config.leak)) == ((3, 4), 0.0, float)


UNFIT = [
    ({"script": "dcgan"}, "is a run of dcgan, not of gan_mlp"),
    ({"script": ...}, "is a run of None"),
    ({"dropout_d": 0.3}, "unknown .'dropout_d'"),
    ({"seed": ...}, "missing .'seed'"),
    ({"seed": "0"}, "seed is '0', not of type int"),
    ({"batchnorm_g": 1}, "batchnorm_g is 1, not of type bool"),
    ({"batch_size": 0}, "--batch-size must be at least 2"),
    ({"leak": NAN}, "--leak must be at least 0"),
    ({"precision": "best"}, "--precision must be one of auto, float32, bfloat16, not best"),
    ({"widths_g": []}, "--widths-g must be a tuple"),
    ({"widths_g": [[8]]}, "--widths-g must be of type int"),
]


@pytest.mark.parametrize(("changes", "said"), UNFIT, ids=[str(row[0]) for row in UNFIT])
def test_a_config_that_does_not_fit_is_named_with_what_is_wrong(tmp_path, changes, said):
    with pytest.raises(BadInput, match=f"^{re.escape(str(tmp_path / 'config.json'))}: .*{said}"):
        read_config(store(tmp_path, gan_mlp.Config(), **changes), gan_mlp.Config)
