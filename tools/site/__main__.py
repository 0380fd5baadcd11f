"""Renews what is made but kept in files: `python -m tools.site again | table | outputs [--measured] | pictures [NAME ...]`."""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parts = asked.add_subparsers(dest="part", required=True)
    parts.add_parser("again", help="the words of the evidence, by the rule of today from what was measured then")
    parts.add_parser("table", help="the table of papers and docs/claims.md, from the evidence")
    outputs = parts.add_parser("outputs", help="what the examples of README and docs print")
    outputs.add_argument("--measured", action="store_true", help="also those that take minutes: on a quiet machine")
    pictures = parts.add_parser("pictures", help="the pictures of the gallery: minutes, and a browser")
    pictures.add_argument("names", nargs="*", help="only these")
    pictures.add_argument("--folder", type=Path, help="where the runs are kept; a temporary folder when left out")
    given = asked.parse_args()
    if given.part == "table":
        from papertrial.study.shelf_table import write_table

        write_table(ROOT / "README.md", ROOT / "evidence")
    elif given.part == "again":
        from papertrial.study.check import judge_again

        changed = judge_again(ROOT / "evidence")
        print("\n".join(changed) or "nothing changed")
    elif given.part == "outputs":
        from tools.site.outputs import renew

        print("\n".join(renew(ROOT, measured=given.measured)) or "nothing changed")
    else:
        from tools.site.pictures import take

        print("\n".join(take(ROOT, given.names, given.folder)))


if __name__ == "__main__":
    main()
