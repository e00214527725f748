"""Fields: their types and limits, presets, config.json there and back."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import autoencoder
import gan_mlp
import infogan
from common import BadInput
from common.run import Run
from common.settings import ACTIONS, PROVENANCE, ROOT, as_stored, batch_ends, flag, read_config
from tests.children import FUZZ

CONFIGS = {module.Config.SCRIPT: module.Config for module in (autoencoder, gan_mlp, infogan)}
EACH = pytest.mark.parametrize("config_class", CONFIGS.values(), ids=CONFIGS)
NAN, INF = float("nan"), float("inf")
DECIDED = {"dataset": "drawn", "device": "cpu", "precision": "float32"}

# What a field of this type never takes, and what some fields do not take.
WRONG = {
    int: (None, 2.5, "3", True, NAN, 10**400),
    float: (None, "fast", True, NAN, INF, -INF),
    bool: (None, 1, "yes"),
    str: (None, 3),
    tuple: (None, (), 8, [8], (8, 8.0), (8, "8"), (True,), (8, 0), (8, 8193)),
}
SHARED = {
    "epochs": (0, -3, 100_001),
    "batch_size": (1, 1_000_001),
    "seed": (-1, 2**32),
    "device": ("tpu", "", None),
    "precision": ("float16",),
}
ADAM = {"learning_rate_d": (-1, 2), "learning_rate_g": (-1, 2), "beta1": (-0.1, 1), "average": (-0.1, 1)}
OWN = {
    "autoencoder": {
        "hidden": (0, 784),
        "hidden_bias": (-101, 101),
        "learning_rate": (-1, 2),
        "optimizer": ("rmsprop",),
    },
    "gan_mlp": ADAM | {"noise_size": (0, 4097), "leak": (-0.1, 1.1), "shift": (-1, 15), "decay_from": (-0.1, 1)},
    "infogan": ADAM
    | {"noise_size": (0, 4097), "decay_from": (-0.1, 1.1)}
    | dict.fromkeys(("info_weight", "continuous_weight", "guide_weight"), (-1, 1001)),
}
FIELDS = [(script, field) for script in CONFIGS for field in dataclasses.fields(CONFIGS[script])]


@pytest.mark.parametrize(("script", "field"), FIELDS, ids=[f"{script} {field.name}" for script, field in FIELDS])
def test_a_field_of_another_type_or_out_of_its_limits_is_named(script, field):
    wrong = WRONG.get(type(field.default), ()) if field.type not in (Path, Path | None) else ()
    for value in (*wrong, *(SHARED | OWN[script]).get(field.name, ())):
        with pytest.raises(BadInput, match=f"^{flag(field.name)} must be .{{,150}}$"):
            CONFIGS[script](**{field.name: value})


@pytest.mark.parametrize(
    ("batch_size", "images", "ends"),
    [
        (50, 150, [50, 100]),
        (50, 149, [50, 100]),
        (50, 151, [50, 100]),  # one image over joins the batch before it
        (50, 152, [50, 100, 150]),
        (127, 128, []),
        (128, 128, []),
        (128, 127, []),  # the default becomes that of a smaller set
    ],
)
def test_every_batch_of_an_epoch_has_two_images_or_more(batch_size, images, ends):
    assert batch_ends(autoencoder.Config(batch_size=batch_size), images) == ends


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


# config.json ------------------------------------------------------------------------------------------------------


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


def test_whole_numbers_of_json_are_floats_where_a_float_belongs_and_lists_are_tuples(tmp_path):
    config = read_config(store(tmp_path, gan_mlp.Config(), leak=0, widths_g=[3, 4]), gan_mlp.Config)
    assert (config.widths_g, config.leak, type(config.leak)) == ((3, 4), 0.0, float)


def test_a_machine_without_git_and_a_call_from_a_notebook_are_stored_as_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/usr/lib/ipykernel_launcher.py", "-f", "kernel.json"])
    stored = as_stored(autoencoder.Config())
    assert (stored["git_commit"], stored["command"]) == (None, None)


UNFIT = [
    ({"script": "dcgan"}, "is a run of dcgan, not of gan_mlp"),
    ({"script": ...}, "is a run of None"),
    ({"dropout_d": 0.3}, "unknown .'dropout_d'"),
    ({"seed": ...}, "missing .'seed'"),
    ({"seed": "0"}, "seed is '0', not of type int"),
    ({"seed": 0.0}, "seed is 0.0, not of type int"),
    ({"batchnorm_g": 1}, "batchnorm_g is 1, not of type bool"),
    ({"batch_size": 0}, "--batch-size must be at least 2"),
    ({"leak": NAN}, "--leak must be at least 0"),
    ({"precision": "best"}, "--precision must be one of auto, float32, bfloat16, not best"),
    ({"widths_g": []}, "--widths-g must be a tuple"),
    ({"widths_g": [[8]]}, "--widths-g must be of type int"),
    ({"widths_g": 8}, "widths_g is 8, not of type tuple"),
]


@pytest.mark.parametrize(("changes", "said"), UNFIT, ids=[str(row[0]) for row in UNFIT])
def test_a_config_that_does_not_fit_is_named_with_what_is_wrong(tmp_path, changes, said):
    with pytest.raises(BadInput, match=f"^{re.escape(str(tmp_path / 'config.json'))}: .*{said}"):
        read_config(store(tmp_path, gan_mlp.Config(), **changes), gan_mlp.Config)


scalars = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))


@EACH
@FUZZ
@given(changes=st.data())
def test_a_config_of_any_values_is_read_or_bad_input(tmp_path, config_class, changes):
    """Every field may be anything that JSON can say, NaN and infinity among it."""
    whole = dict.fromkeys(PROVENANCE) | vars(config_class()) | {"script": config_class.SCRIPT}
    for name in changes.draw(st.lists(st.sampled_from(sorted(whole)), max_size=4)):
        whole[name] = changes.draw(values)
    (tmp_path / "config.json").write_text(json.dumps(whole, default=str), encoding="utf-8")
    with suppress(BadInput):
        assert isinstance(read_config(tmp_path, config_class), config_class)
