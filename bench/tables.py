"""RTDL against tuned boosted trees on real tables, at an equal time budget: one `papertrial compare` per table.

    python bench/tables.py FOLDER_OF_TABLES [--seeds 3] [--budget 20s] [--out runs/tables]

FOLDER_OF_TABLES holds CSV files and tasks.json with the target of each (`{"adult": {"file": ..., "target": ...}}`).
Writes the verdicts as Markdown to standard output; every figure in it comes from the comparisons just run.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import papertrial as pt

TABLES = ("california_housing", "adult", "covertype_10k", "house_8L", "cpu_act", "wine_quality", "letter")
METHODS = ("rtdl:ft_transformer", "rtdl:resnet", "rtdl:mlp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="20s")
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    arguments = parser.parse_args()
    tasks = json.loads((arguments.folder / "tasks.json").read_text())
    for name in TABLES:
        data = pt.open(arguments.folder / tasks[name]["file"], target=tasks[name]["target"])
        result = pt.compare(
            METHODS,
            data,
            seeds=arguments.seeds,
            budget=arguments.budget,
            worth=False,
            out=arguments.out / name,
            progress=False,
            echo=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(f"\n### {name}\n\n```\n" + "\n".join(result.lines()) + "\n```", flush=True)


if __name__ == "__main__":
    main()
