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
from common.data import DATASETS
from common.run.cli import Parser, parse, run_program
from common.run.config import ACTIONS, ROOT, Settings, flag, read_config
from common.run.files import read_json, write_csv

SCRIPTS = ("infogan", "gan_mlp", "autoencoder")
GIVEN = ("seed", "out", "resume")  # fields that this program gives to each run
PLACES = ("out", "data_dir", *ACTIONS)  # the same result is wanted whatever these are, and the device
NOT_IN_THE_NAME = (*GIVEN, *PLACES, "device")


def refuse(arguments: Sequence[str], fields: Sequence[str]) -> None:
    """Raise BadInput for a flag of a field that the study itself gives to each run."""
    for name in map(flag, fields):
        if any(word.partition("=")[0] == name for word in arguments):
            raise BadInput(f"{name} is given to each run by this program (--help says more)")


def seeds_of(text: str) -> list[int]:
    """`0-9`, `3` or `0,2,5-7` -> whole numbers in that order. Raises BadInput for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        if not ends or int(ends[2] or ends[1]) < int(ends[1]):
            raise BadInput(f"--seeds must be like 0-9 or 0,3,7, not {text}")
        seeds += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return list(dict.fromkeys(seeds))


def study_name(config: Settings) -> str:
    """The presets, then the fields that differ from them or from the defaults, as a folder's name; `default` without
    any."""
    named = [name for name in reversed(config.PRESETS) if getattr(config, name)]
    expected = vars(type(config).make(**dict.fromkeys(named, True)))
    for name, value in vars(config).items():
        if name not in NOT_IN_THE_NAME and value != expected[name]:
            text = "-".join(map(str, value)) if isinstance(value, tuple) else value
            named.append(f"{name}={text}")
    return re.sub(r"[^\w.=,+-]+", "_", ",".join(named)) or "default"


def runs_of(folder: Path) -> list[Path]:
    """The run folders of a seed, the newest first."""
    return sorted((path.parent for path in folder.glob("*/run-*/config.json")), reverse=True)


def finished(folder: Path, config: Settings) -> Path | None:
    """The run folder in which a seed has come to its end. Raises BadInput if it was run with other fields."""
    free = (*NOT_IN_THE_NAME, "epochs", "precision")  # a run stores what `auto` has become, and a folder's whole path
    decided = config.for_classes(2)  # where this differs, the set decides
    wanted = {name: v for name, v in vars(config).items() if name not in free and v == getattr(decided, name)}
    if config.dataset == "auto" or config.smoke:
        del wanted["dataset"]
    elif config.dataset not in DATASETS:
        wanted["dataset"] = str(Path(config.dataset).expanduser().resolve())
    for run in runs_of(folder):
        stored = read_config(run, type(config))
        for name, new in wanted.items():
            if (old := getattr(stored, name)) != new:
                raise BadInput(f"{run}: was run with {name} {old}, not {new}; move it away to run the seed again")
        done = read_json(run / "report.json")["epochs"] if (run / "report.json").exists() else 0
        if done >= stored.epochs == config.epochs:
            return run
    return None


_running: set[subprocess.Popen] = set()


def run_seed(script: str, seed: int, folder: Path, flags: list[str], threads: int) -> None:
    """Run or continue one seed in a process of its own, its output in log.txt."""
    command, log_file = [sys.executable, str(ROOT / f"{script}.py")], folder / "log.txt"
    begun = next((run for run in runs_of(folder) if (run / "checkpoint.pt").exists()), None)
    command += ["--resume", str(begun)] if begun else ["--seed", str(seed), "--out", str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    print(f"seed {seed}: {'goes on' if begun else 'begins'}, see {log_file}", flush=True)
    with log_file.open("a", encoding="utf-8") as log:
        # A session of its own, so that Ctrl-C reaches it once, through this process: a second one would end it at once.
        process = subprocess.Popen([*command, *flags], stdout=log, stderr=log, env=environment, start_new_session=True)
        _running.add(process)
        status = process.wait()
        _running.remove(process)
    *_, last = ["", *log_file.read_text(encoding="utf-8").strip().splitlines()]
    print(f"seed {seed}: {'finished' if status == 0 else f'exit {status}, {last}'}", flush=True)


def read_table(path: Path) -> dict[int, dict[str, float]]:
    """The figures of each seed in a table of `summarise`; none without such a file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seeds = [name for name in rows[0] if name.startswith("seed ")]
    return {int(name[5:]): {row["figure"]: json.loads(row[name]) for row in rows} for name in seeds}


def summarise(reports: dict[int, dict[str, Any]], command: str, path: Path) -> None:
    """Print and write the minimum, median and maximum of every figure over the seeds, then the figure of each seed."""
    rows, spread = [], {"minimum": min, "median": median, "maximum": max}
    print(f"\n{command}\n{'':36}" + "".join(f"{name:>10}" for name in spread))
    for figure in next(iter(reports.values())):
        values = {f"seed {seed}": report.get(figure) for seed, report in reports.items()}
        if all(isinstance(value, (int, float)) for value in values.values()):
            over_seeds = {name: of(values.values()) for name, of in spread.items()}
            rows.append({"figure": figure, **over_seeds, **values, "command": command})
            print(f"{figure:36}" + "".join(f"{value:>10.4g}" for value in over_seeds.values()))
    write_csv(path, rows)
    print(f"{len(reports)} seeds; written to {path}")


def main(arguments: list[str]) -> dict[int, Path]:
    """Run the seeds that are not finished, make the table; return the run folder of each seed.

    Raises BadInput for arguments that this program or the script does not take, RunFailed if a seed has no result.
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
    return runs


if __name__ == "__main__":
    run_program(main)
