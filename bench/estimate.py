"""`estimate` against the run it speaks of: predicted over actual seconds and peak memory, each in a process of its own.

What others do on the machine during one of the two is part of the difference; with `--processor-time` both sides count
the time of the processors for this process in place of the time that passes.

    python bench/estimate.py [--mnist FOLDER] [--table FILE --target NAME] [--seconds 25] [--only METHOD ...] [--processor-time]

Each run gets as many steps as fit into `--seconds` by a first estimate. Early stopping is put off, so that all steps are
taken. Prints a Markdown table; figures within 25 % are what papertrial promises. Without folders: built-in data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = ("mlp_mixer", "barlow_twins", "nfnet", "resnet")
#: the command, with the clocks of training and estimate counting what this process computes
PROCESSOR_TIME = """
import time, types
from papertrial.study import estimate
from papertrial.train import loop
spent = time.process_time
loop.time = estimate.time = types.SimpleNamespace(perf_counter=spent, monotonic=spent)
from papertrial.app.cli import main
main()
"""
TABLES = ("rtdl:mlp", "rtdl:resnet", "rtdl:ft_transformer")


def papertrial(start: list[str], *words: str) -> dict:
    done = subprocess.run([sys.executable, *start, *words, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def compare(start: list[str], method: str, options: list[str], seconds: float) -> tuple[str, float, float]:
    """A line of the table, and predicted over actual for seconds and memory."""
    options = [*options, "--set", "patience=1000"] if method in TABLES else options
    steps = papertrial(start, "estimate", method, *options, "--budget", f"{seconds:g}s")["cost"]["steps"]
    options = [*options, "--budget", f"{steps}steps"]
    cost = papertrial(start, "estimate", method, *options)["cost"]
    with tempfile.TemporaryDirectory() as folder:
        real = papertrial(start, "fit", method, *options, "--out", f"{folder}/run")["cost"]
    time, memory = cost["training"] / real["seconds"], cost["peak_bytes"] / real["peak_bytes"]
    line = (
        f"| {method} | {steps} | {cost['training']:.1f} | {real['seconds']:.1f} | {time:.2f} "
        f"| {cost['peak_bytes'] / 1e6:.0f} | {real['peak_bytes'] / 1e6:.0f} | {memory:.2f} |"
    )
    return line, time, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="a folder of images, in place of digits")
    parser.add_argument("--table", type=Path, help="a table, in place of breast_cancer")
    parser.add_argument("--target")
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--only", nargs="+", choices=(*IMAGES, *TABLES), default=(*IMAGES, *TABLES))
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    start = ["-c", PROCESSOR_TIME] if arguments.processor_time else ["-m", "papertrial"]
    images = ["--data", str(arguments.mnist or "digits")]
    table = ["--data", str(arguments.table or "breast_cancer")]
    table += ["--target", arguments.target] if arguments.target else []
    print("| method | steps | s, estimated | s, real | ratio | MB, estimated | MB, real | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    worst = 1.0
    for method in arguments.only:
        line, *ratios = compare(start, method, images if method in IMAGES else table, arguments.seconds)
        worst = max(worst, *(max(ratio, 1 / ratio) for ratio in ratios))
        print(line, flush=True)
    print(f"\nworst: off by a factor of {worst:.2f}")


if __name__ == "__main__":
    main()
