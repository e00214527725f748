"""How much of a result is luck? A script run once per seed, and one table of what the seeds reached.

    python benchmarks/seeds.py infogan.py --seeds 0-9
    python benchmarks/seeds.py infogan.py --seeds 0-9 --paper --at-once 2
    python benchmarks/seeds.py infogan.py --seeds 0-9 --paper --summarise

Every flag that is not one of this program's goes to the script. Each run is a process of its own and has a folder of
its own under outputs/seeds/, named after the script and the fields that differ from its defaults, or from `--paper`. A
run that is finished is not run again, one that was stopped goes on, so the same command can be given again at any time,
and on as many machines that share the folder as one likes, a seed to each; `--summarise` then only makes the table.
"""

import argparse
import csv
import dataclasses
import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import BadInput
from common.data import DATASETS
from common.run import ASKED, FREE_ON_RESUME, ROOT, parse, read_config, read_json, whole_file

SCRIPTS = ("infogan", "gan_mlp", "autoencoder")
NOT_PASSED_ON = ("seed", "out", "resume")  # this program gives them
# What names no study: the same result is wanted whatever these are.
NOT_IN_THE_NAME = (*NOT_PASSED_ON, "data_dir", "device", *ASKED)


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


def study_name(config: Any) -> str:
    """The fields that differ from the script's defaults as a folder's name; `default` where none does.

    With `--paper` the name begins with `paper`, and the fields are those that differ from that preset.
    """
    preset = config.PAPER if getattr(config, "paper", False) else {}
    named = ["paper"] if preset else []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in NOT_IN_THE_NAME and value != preset.get(field.name, field.default):
            value = "-".join(map(str, value)) if isinstance(value, tuple) else value
            named.append(f"{field.name}={value}")
    return re.sub(r"[^\w.=,+-]+", "_", ",".join(named)) or "default"


def runs_of(folder: Path) -> list[Path]:
    """The run folders of a seed, the newest first."""
    return sorted((path for path in folder.glob("*/run-*") if (path / "config.json").exists()), reverse=True)


def finished(folder: Path, config: Any) -> Path | None:
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
        if (run / "report.json").exists() and read_json(run / "report.json")["epochs"] == config.epochs:
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


def summarise(reports: dict[int, dict[str, Any]], command: str, path: Path) -> list[dict[str, Any]]:
    """Print and write the minimum, median and maximum of every figure over the seeds, then the figure of each seed."""
    figures = [
        name
        for name in next(iter(reports.values()))
        if all(isinstance(report.get(name), (int, float)) for report in reports.values())
    ]
    rows = []
    for name in figures:
        values = {seed: report[name] for seed, report in reports.items()}
        row = {"figure": name, "minimum": min(values.values()), "median": median(values.values())}
        row |= {"maximum": max(values.values()), **{f"seed {seed}": value for seed, value in values.items()}}
        rows.append({**row, "command": command})
    with whole_file(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{command}\n{'':36}{'minimum':>10}{'median':>10}{'maximum':>10}")
    for row in rows:
        print(f"{row['figure']:36}" + "".join(f"{row[key]:>10.4g}" for key in ("minimum", "median", "maximum")))
    print(f"{len(reports)} seeds; written to {path}")
    return rows


def main(arguments: list[str]) -> int:
    """Run the seeds that are not finished, make the table. Returns 0, or 1 where a seed has no result.

    Raises BadInput for arguments that this program or the script does not take.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("script", help="infogan.py, gan_mlp.py or autoencoder.py")
    parser.add_argument("--seeds", default="0-9", help="like 0-9 or 0,3,7 (default: 0-9)")
    parser.add_argument("--at-once", type=int, default=1, help="runs at a time, which share the cores (default: 1)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "seeds", help="parent of the studies")
    parser.add_argument("--summarise", action="store_true", help="run nothing, make the table of what is finished")
    own, flags = parser.parse_known_args(arguments)
    script, seeds = Path(own.script).stem, seeds_of(own.seeds)
    if script not in SCRIPTS:
        raise BadInput(f"{own.script}: must be one of {', '.join(f'{name}.py' for name in SCRIPTS)}")
    if own.at_once < 1:
        raise BadInput(f"--at-once must be at least 1, not {own.at_once}")
    for name in NOT_PASSED_ON:
        if any(flag.split("=")[0] == f"--{name}" for flag in flags):
            raise BadInput(f"--{name} is given to each run by this program; see --seeds and --out")
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
    missing = [str(seed) for seed in seeds if seed not in reports]
    if missing:
        print(f"without a result: seed {', '.join(missing)}", file=sys.stderr)
    if len(found := {report["dataset"] for report in reports.values()}) > 1:
        raise BadInput(f"{study}: has runs on {', '.join(sorted(found))}; move those of one away, and give --dataset")
    if reports:
        command = ["python", "benchmarks/seeds.py", f"{script}.py", "--seeds", own.seeds, *flags]
        summarise(reports, shlex.join(command), study / "summary.csv")
    return 1 if missing else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job starts with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except BadInput as error:
        print(f"seeds.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
