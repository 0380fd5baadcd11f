"""Checks what is released: `python -m tools.wheel dist` counts the files of wheel and sdist, and tries the wheel alone.

Alone means an environment of its own (not one that sees other packages) without extras: what the package itself does works, and a
command that needs an extra says which, in one line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: files of the checkout that the sdist holds besides the package
_SDIST = (
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "NOTICE",
    "CITATION.cff",
    "constraints.txt",
    "Makefile",
    "mkdocs.yml",
    "tests/conftest.py",
    "tools/wheel.py",
    "docs/claims.md",
)
#: what works without extras, in this order
WORKS = (
    "--help",
    "list",
    "read rtdl",
    "doctor",
    "look digits",
    "look breast_cancer",
    "fit mlp_mixer --data digits --budget 3steps --out runs/digits --quiet",
    "fit rtdl:resnet --data iris --budget 3steps --out runs/iris --quiet",
    "predict runs/digits digits --out answers.csv",
    "evaluate runs/iris iris",
    "report runs/iris",
    "export runs/digits --to torch",
    "eject runs/digits --out ejected",
    "search list attention",
    'rasp -c reverse("abc");',
    "compare rtdl:resnet --data iris --seeds 2 --budget 0.2s --out runs/verdict --quiet",
)
#: extra -> a command that needs it
NEEDS = {
    "tabular": "fit xgboost --data iris --out runs/x",
    "tabm": "fit tabm --data iris --out runs/x",
    "export": "export runs/digits --to onnx",
    "encoder": "fit minilm --data python-pairs --out runs/x",
    "vision": "fit pretrained --data digits --out runs/x",
    "backbones": "fit timm:resnet18 --data digits --out runs/x",
    "hub": "look hf:some/data",
    "cluster": "compare rtdl:resnet --data iris --seeds 2 --budget 0.2s --engine ray --out runs/x",
    "metrics": "fit bleu --data python-outputs --out runs/x",
    "web": "web runs",
}
#: extras that no command alone asks for
QUIET = {
    "energy": "costs are then estimated or unknown",
    "postgres": "asked for after web, where a study is to lie in PostgreSQL",
    "text": "asked for by the tokeniser of a Hugging Face folder, whose model needs backbones first",
    "search": "asked for by an index of very many vectors, which needs encoder first",
}


def missing_files(dist: Path) -> Iterator[str]:
    """Files that the wheel or the sdist in `dist` lacks. Raises FileNotFoundError where there is not one of each."""
    wheels, sdists = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        raise FileNotFoundError(f"{dist} holds {len(wheels)} wheels and {len(sdists)} sdists, not one of each")
    package = [
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "papertrial").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    with zipfile.ZipFile(wheels[0]) as archive:
        held = set(archive.namelist())
    yield from (f"{wheels[0].name} lacks {name}" for name in package if name not in held)
    with tarfile.open(sdists[0]) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    yield from (
        f"{sdists[0].name} lacks {name}" for name in [*_SDIST, *(f"src/{name}" for name in package)] if name not in held
    )


def install(wheel: Path, folder: Path) -> Path:
    """The command `papertrial` of a new environment in `folder` that holds the wheel and what it requires."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([str(scripts / "python"), *words, str(wheel)], check=True)
    return scripts / "papertrial"


def wrong(command: Path, folder: Path) -> Iterator[str]:
    """What does not do as it should when it is typed in `folder`."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"PAPERTRIAL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def typed(words: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(command), *words.split(" ", 2 if words.startswith("rasp") else -1)],
            cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=600, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    for words in WORKS:
        code, told = typed(words)
        if code:
            yield f"papertrial {words} ended with {code}: {told.strip()[-600:]}"
    for extra, words in NEEDS.items():
        code, told = typed(words)
        if code != 2 or f"pip install 'papertrial[{extra}]'" not in told or "Traceback" in told:
            yield f"papertrial {words} ended with {code} and did not ask for [{extra}]: {told.strip()[-600:]}"


def main() -> None:
    dist = Path(sys.argv[1] if len(sys.argv) > 1 else "dist")
    found = list(missing_files(dist))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        work.mkdir()
        found += wrong(install(next(dist.glob("*.whl")), Path(folder) / "alone"), work)
    if found:
        sys.exit("\n".join(found))
    print(f"{dist}: no file is missing; alone, {len(WORKS)} commands work and {len(NEEDS)} ask for their extra")


if __name__ == "__main__":
    main()
