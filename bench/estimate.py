"""`estimate` against the run it speaks of: predicted over actual seconds and peak memory, each in a process of its own.

What others do on the machine during one of the two is part of the difference; with `--processor-time` both sides count
the time of the processors for this process in place of the time that passes.

    python bench/estimate.py [--only METHOD ...] [--seconds 25] [--wide] [--processor-time]

Every paper of the shelf that is trained by steps, and what it is trained with, on data that are built in or, with
`--wide`, on MNIST and Adult of the data folder (PAPERTRIAL_DATA). Each run gets as many steps as fit into `--seconds` by
a first estimate. Early stopping is put off, so that all steps are taken. Prints a Markdown table: seconds of training,
seconds of all (loading, data, training, judging), and memory; figures within 25 % are what papertrial promises.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

#: method -> its data, and what else it is asked with
METHODS: dict[str, dict] = {
    "mlp_mixer": {"data": "digits"},
    "barlow_twins": {"data": "digits"},
    "nfnet": {"data": "digits"},
    "resnet": {"data": "digits"},
    "rtdl:mlp": {"data": "breast_cancer", "settings": {"patience": 1000}},
    "rtdl:resnet": {"data": "breast_cancer", "settings": {"patience": 1000}},
    "rtdl:ft_transformer": {"data": "breast_cancer", "settings": {"patience": 1000}},
    "switch": {"data": "python-docs", "task": "language_modeling"},
    "lce_reranker": {"data": "docstrings"},
    "simcse": {"data": "python-lines"},
    "byt5": {"data": "python-pairs"},
    "dalle": {"data": "digits"},
    "guided_diffusion": {"data": "digits", "task": "image_generation"},
}
WIDE = {"digits": "images/mnist", "breast_cancer": "tabular/adult.csv.gz"}


def one(what: str, method: str, asked: dict, budget: str, processor_time: bool) -> dict:
    """In this process: seconds of training and of all, bytes and steps, as foretold or as they came."""
    from papertrial.study import estimate
    from papertrial.train import loop, stages
    from papertrial.use.fit import Outcome, fit

    clock = time.process_time if processor_time else time.perf_counter
    if processor_time:
        estimate.time = loop.time = stages.time = types.SimpleNamespace(perf_counter=clock, monotonic=clock)
    begun = clock()
    if what == "estimate":
        told = estimate.estimate(method, budget=budget, **asked)
        cost = told.cost
        return {"training": cost.training, "all": told.seconds, "bytes": cost.peak_bytes, "steps": cost.steps}
    with tempfile.TemporaryDirectory() as folder:
        fit(method, budget=budget, out=f"{folder}/run", progress=False, **asked)
        passed, spent = clock() - begun, Outcome.read(Path(folder) / "run").meter
    return {"training": spent.seconds, "all": passed, "bytes": spent.peak_bytes, "steps": spent.steps}


def elsewhere(*arguments: object) -> dict:
    """`one` in a fresh process."""
    command = [sys.executable, __file__, "--one", json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(method: str, asked: dict, seconds: float, processor_time: bool) -> tuple[str, float]:
    """A line of the table, and by what factor its worst figure is off."""
    steps = elsewhere("estimate", method, asked, f"{seconds:g}s", processor_time)["steps"]
    told, real = (elsewhere(what, method, asked, f"{steps}steps", processor_time) for what in ("estimate", "fit"))
    cells, worst = [method, str(real["steps"])], 1.0
    for name, unit in (("training", 1), ("all", 1), ("bytes", 1e6)):
        ratio = told[name] / real[name]
        worst = max(worst, ratio, 1 / ratio)
        cells += [f"{told[name] / unit:.1f}", f"{real[name] / unit:.1f}", f"{ratio:.2f}"]
    return f"| {' | '.join(cells)} | {os.getloadavg()[0]:.1f} |", worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--wide", action="store_true", help="larger images and a larger table")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(*arguments.one)))
        return
    print("| method | steps | s, estimated | s, real | ratio | all s, estimated | real | ratio ", end="")
    print("| MB, estimated | MB, real | ratio | load |")
    print(f"|{'---|' * 12}")
    worst = 1.0
    for method in arguments.only:
        asked = dict(METHODS[method])
        if arguments.wide and asked["data"] in WIDE:
            asked["data"] = str(Path(os.environ["PAPERTRIAL_DATA"]) / WIDE[asked["data"]])
        line, off = compare(method, asked, arguments.seconds, arguments.processor_time)
        worst = max(worst, off)
        print(line, flush=True)
    print(f"\nworst: off by a factor of {worst:.2f}")


if __name__ == "__main__":
    main()
