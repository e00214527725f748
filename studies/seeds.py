"""How much of a result is luck? A script run once per seed, and one table of what the seeds reached.

    python studies/seeds.py infogan.py --seeds 0-9
    python studies/seeds.py infogan.py --seeds 0-9 --paper --at-once 2
    python studies/seeds.py infogan.py --seeds 0-9 --paper --summarise

Every flag that is not one of this program's goes to the script. Each run is a process of its own and has a folder of
its own under outputs/seeds/, named after the script, its presets such as `--paper`, and the fields that differ from
these or from the defaults. A run that is finished is not run again, one that was stopped goes on, so the same command
can be given again at any time, and on as many machines that share the folder as one likes, a seed to each;
`--summarise` then only makes the table. Machines that share nothing but a `--table` add their seeds to it.
"""

import argparse
import csv
import dataclasses
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import BadInput, RunFailed
from common.cli import Parser, parse, run_program
from common.data import DATASETS
from common.files import read_json, write_csv
from common.settings import ACTIONS, FREE_ON_RESUME, ROOT, Settings, flag, read_config

SCRIPTS = ("infogan", "gan_mlp", "autoencoder")
GIVEN = ("seed", "out", "resume")  # fields that this program gives to each run
# What names no study: the same result is wanted whatever these are.
NOT_IN_THE_NAME = (*GIVEN, "data_dir", "device", *ACTIONS)


def refuse(arguments: Sequence[str], fields: Sequence[str]) -> None:
    """Raise BadInput for a flag of a field that the study itself gives to each run."""
    for name in map(flag, fields):
        if any(word.partition("=")[0] == name for word in arguments):
            raise BadInput(f"{name} is given to each run by this program (--help says more)")


def seeds_of(text: str) -> list[int]:
    """`0-9`, `3` or `0,2,5-7` -> whole numbers in that order. Raises BadInput for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", part.strip())
        if not ends:
            raise BadInput(f"--seeds must be like 0-9 or 0,3,7, not {text}")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not first <= last < first + 10_000:
            raise BadInput(f"--seeds: {part} is no range of at most 10,000 seeds")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def study_name(config: Settings) -> str:
    """The presets, then the fields that differ from them or from the defaults, as a folder's name; `default` where
    there is none."""
    named = [name for name in config.PRESETS if getattr(config, name)]
    expected = {name: True for name in named}
    for name in named:
        expected |= config.PRESETS[name]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in NOT_IN_THE_NAME and value != expected.get(field.name, field.default):
            value = "-".join(map(str, value)) if isinstance(value, tuple) else value
            named.append(f"{field.name}={value}")
    return re.sub(r"[^\w.=,+-]+", "_", ",".join(named)) or "default"


def runs_of(folder: Path) -> list[Path]:
    """The run folders of a seed, the newest first."""
    return sorted((path for path in folder.glob("*/run-*") if (path / "config.json").exists()), reverse=True)


def finished(folder: Path, config: Settings) -> Path | None:
    """The run folder in which a seed has come to its end. Raises BadInput where it was run with other fields."""
    wanted = {name: value for name, value in vars(config).items() if name not in ("seed", *FREE_ON_RESUME)}
    if config.dataset == "auto":  # each run has stored what it found
        del wanted["dataset"]
    elif config.dataset not in DATASETS:  # a run stores a folder's whole path
        wanted["dataset"] = str(Path(config.dataset).expanduser().resolve())
    for run in runs_of(folder):
        stored = read_config(run, type(config))
        for name, new in wanted.items():
            if (old := getattr(stored, name)) != new:
                raise BadInput(f"{run}: was run with {name} {old}, not {new}; move it away to run the seed anew")
        done = read_json(run / "report.json")["epochs"] if (run / "report.json").exists() else 0
        if done >= stored.epochs == config.epochs:
            return run
    return None


_running: set[subprocess.Popen] = set()


def run_seed(script: str, seed: int, folder: Path, flags: list[str], threads: int) -> int:
    """Run or go on with one seed in a process of its own, its output in log.txt. Returns the exit status."""
    command = [sys.executable, str(ROOT / f"{script}.py")]
    begun = next((run for run in runs_of(folder) if (run / "checkpoint.pt").exists()), None)
    command += ["--resume", str(begun)] if begun else ["--seed", str(seed), "--out", str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    print(f"seed {seed}: {'goes on' if begun else 'begins'}, see {folder / 'log.txt'}", flush=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        # A session of its own, so that Ctrl-C reaches it once, through this process: a second one would end it at once.
        process = subprocess.Popen([*command, *flags], stdout=log, stderr=log, env=environment, start_new_session=True)
        _running.add(process)
        status = process.wait()
        _running.remove(process)
    said = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()
    print(f"seed {seed}: " + ("finished" if status == 0 else f"exit {status}, {said[-1] if said else ''}"), flush=True)
    return status


def read_table(path: Path) -> dict[int, dict[str, float]]:
    """The figures of each seed in a table of `summarise`; none where there is no such file."""
    found: dict[int, dict[str, float]] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name.startswith("seed "):
                        found.setdefault(int(name[5:]), {})[row["figure"]] = json.loads(value)
    return found


def summarise(reports: dict[int, dict[str, Any]], command: str, path: Path) -> None:
    """Print and write the minimum, median and maximum of every figure over the seeds, then the figure of each seed."""
    rows = []
    for name in next(iter(reports.values())):
        values = {f"seed {seed}": report.get(name) for seed, report in reports.items()}
        if all(isinstance(value, (int, float)) for value in values.values()):
            known = list(values.values())
            spread = {"minimum": min(known), "median": median(known), "maximum": max(known)}
            rows.append({"figure": name, **spread, **values, "command": command})
    write_csv(path, rows)
    print(f"\n{command}\n{'':36}{'minimum':>10}{'median':>10}{'maximum':>10}")
    for row in rows:
        print(f"{row['figure']:36}" + "".join(f"{row[key]:>10.4g}" for key in ("minimum", "median", "maximum")))
    print(f"{len(reports)} seeds; written to {path}")


def main(arguments: list[str]) -> None:
    """Run the seeds that are not finished, make the table.

    Raises BadInput for arguments that this program or the script does not take, RunFailed where a seed has no result.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("script", help="infogan.py, gan_mlp.py or autoencoder.py")
    parser.add_argument("--seeds", default="0-9", help="like 0-9 or 0,3,7 (default: 0-9)")
    parser.add_argument("--at-once", type=int, default=1, help="runs at a time, which share the cores (default: 1)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "seeds", help="parent of the studies")
    parser.add_argument("--table", type=Path, help="csv of the figures (default: summary.csv in the study's folder)")
    parser.add_argument("--summarise", action="store_true", help="run nothing, make the table of what is finished")
    own, flags = parser.parse_known_args(arguments)
    script, seeds = Path(own.script).stem, seeds_of(own.seeds)
    if script not in SCRIPTS:
        raise BadInput(f"{own.script}: must be one of {', '.join(f'{name}.py' for name in SCRIPTS)}")
    if own.at_once < 1:
        raise BadInput(f"--at-once must be at least 1, not {own.at_once}")
    refuse(flags, GIVEN)
    config = parse(importlib.import_module(script).Config, flags)

    study = own.out / script / study_name(config)
    folders = {seed: study / f"seed-{seed:03d}" for seed in seeds}
    if not own.summarise:
        left = [seed for seed in seeds if not finished(folders[seed], config)]
        threads = max(1, (os.cpu_count() or 1) // own.at_once)
        with ThreadPoolExecutor(own.at_once) as pool:
            try:
                list(pool.map(lambda seed: run_seed(script, seed, folders[seed], flags, threads), left))
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(_running):
                    process.terminate()  # each writes its checkpoint first
                raise

    runs = {seed: finished(folders[seed], config) for seed in seeds}
    reports = {seed: read_json(run / "report.json") for seed, run in runs.items() if run}
    if len(found := {report["dataset"] for report in reports.values()}) > 1:
        raise BadInput(f"{study}: has runs on {', '.join(sorted(found))}; move those of one away, and give --dataset")
    reports = dict(sorted(((read_table(own.table) if own.table else {}) | reports).items()))
    if reports:
        all_of_them = own.seeds if {*reports} <= {*seeds} else ",".join(map(str, reports))
        command = ["python", "studies/seeds.py", f"{script}.py", "--seeds", all_of_them, *flags]
        summarise(reports, shlex.join(command), own.table or study / "summary.csv")
    if missing := [str(seed) for seed in seeds if seed not in reports]:
        raise RunFailed(f"without a result: seed {', '.join(missing)}")


if __name__ == "__main__":
    run_program(main)
