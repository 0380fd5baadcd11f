"""Small real data sets by name: enough to try everything without a download. They come with scikit-learn and Python."""

from __future__ import annotations

import itertools
import os
import re
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import Declined
from papertrial.data.images import Images
from papertrial.data.textfiles import Repairs, to_utf8
from papertrial.data.texts import Texts
from papertrial.data.texts.pairs import Pairs
from papertrial.data.texts.utf8 import as_ragged, files_as_rows


def digits() -> Images:
    """1 797 handwritten digits, 8 x 8 grey; the 17 levels of the source are spread over 0..255."""
    from sklearn.datasets import load_digits

    held = load_digits()
    pixels = (held.images * (255 / 16)).round().astype(np.uint8)
    return Images.from_arrays(pixels, held.target, name="digits")


def iris() -> Any:
    """150 flowers of three species by four measures."""
    return _table("iris")


def wine() -> Any:
    """178 wines of three makers by thirteen measures."""
    return _table("wine")


def breast_cancer() -> Any:
    """569 tumours, malignant or benign, by thirty measures of their cells."""
    return _table("breast_cancer")


def diabetes() -> Any:
    """442 patients with ten measures, and how far their disease had moved on a year later."""
    return _table("diabetes")


def _table(name: str) -> Any:
    from sklearn import datasets

    from papertrial.data.tables import Table

    held = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = held.frame
    if "target_names" in held:
        frame = frame.assign(target=np.asarray(held.target_names)[frame["target"]])
    table = Table.from_frame(frame, target="target")
    table.name = name
    return table


def docstrings() -> Any:
    """What Python's own functions say of themselves: the first line of a docstring asks for the rest of it."""
    import ast
    import inspect

    from papertrial.data.collections import Collection
    from papertrial.data.collections.files import Document

    asked: dict[str, Document] = {}
    for name in _DOCUMENTED:
        source = (Path(sysconfig.get_path("stdlib")) / f"{name}.py").read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                if len(rest) >= 80 and len(first) >= 20:
                    asked[" ".join(first.split())] = Document(f"{name}:{node.lineno}", "", inspect.cleandoc(rest))
    queries = [(document.id, words) for words, document in asked.items()]
    return Collection("docstrings", asked.values(), queries, {0: [(key, key, 1) for key, _ in queries]})


_DOCUMENTED = (
    "argparse", "calendar", "configparser", "contextlib", "csv", "difflib", "doctest", "fractions", "functools", "heapq",
    "inspect", "optparse", "os", "pathlib", "random", "shutil", "statistics", "subprocess", "tarfile", "textwrap",
    "threading", "turtle", "typing", "uuid",
)  # fmt: skip


def python_docs() -> Texts:
    """Python's own help topics: some 80 texts in English, with the code that explains them."""
    from pydoc_data import topics

    held = sorted(topics.topics.items())
    ragged = as_ragged([text for _, text in held])
    return Texts(ragged, name="python-docs", names=[name for name, _ in held], unit="topic")


def python_lines() -> Texts:
    """Lines of Python's standard library: comments (without their sign) and code, 2000 of each, labelled by what they were."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, list[str]] = {"comment": [], "code": []}
    for file in sorted(root.glob("[a-z]*.py")):
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            bare = line.strip()
            kind = "comment" if bare.startswith("# ") else "code" if re.search(r"[=(\[:]$|[=)]", bare) else ""
            if kind and len(bare.split()) >= 4:
                found[kind].append(bare.removeprefix("# "))
    texts, labels = [], []
    for kind, lines in found.items():
        places = np.unique(np.linspace(0, len(lines) - 1, 2000).astype(np.int64))
        texts += [lines[place] for place in places]
        labels += [kind] * len(places)
    return Texts.from_strings(texts, labels, name="python-lines")


def python_pairs() -> Pairs:
    """Pairs of sentences that begin the paragraphs of Python's help topics: 1 for two that follow each other in a topic, 0
    for two of two topics."""
    held = _beginnings()
    draw = np.random.default_rng(0)
    pairs, scores = [], []
    for (topic, first), (other, second) in itertools.pairwise(held):
        elsewhere, stranger = held[draw.integers(len(held))]
        if topic == other:
            pairs.append((first, second))
            scores.append(1.0)
        if elsewhere != topic:
            pairs.append((first, stranger))
            scores.append(0.0)
    return Pairs.from_strings(pairs, scores, name="python-pairs")


def python_outputs() -> Any:
    """Sentences of Python's help as three made-up systems give them back, each with some words of another sentence; the score
    is the share of words they left alone. Nobody judged them: it is for trying metrics of texts."""
    from papertrial.data.texts.judged import Judged

    held = [sentence.split() for _, sentence in _beginnings() if len(sentence.split()) >= 8]
    draw = np.random.default_rng(0)
    rows, scores, items = [], [], []
    for place, words in enumerate(held[:200]):
        for system, spoilt in (("careful", 0.1), ("hasty", 0.3), ("careless", 0.6)):
            away = draw.random(len(words)) < spoilt
            other = draw.choice(held[int(draw.integers(len(held)))], size=len(words))
            rows.append((system, " ".join(words), " ".join(np.where(away, other, words))))
            scores.append(float(1 - away.mean()))
            items.append(str(place))
    return Judged.from_rows(rows, scores, item=items, name="python-outputs")


def _beginnings() -> list[tuple[str, str]]:
    """(topic, first sentence of a paragraph) of Python's help topics; what is indented, ruled or very short is left out."""
    from pydoc_data import topics

    paragraphs = (
        (topic, " ".join(paragraph.split()))
        for topic, text in sorted(topics.topics.items())
        for paragraph in re.split(r"\n[ \t]*\n", text)
        if "***" not in paragraph and not paragraph.strip("\n").startswith(" ")
    )
    cut = ((topic, re.split(r"(?<=[.:]) ", paragraph)[0]) for topic, paragraph in paragraphs)
    return [(topic, sentence) for topic, sentence in cut if len(sentence.split()) >= 4]


def python_source() -> Texts:
    """The source of Python's standard library, a text per file: some 10 MB of code; tests are left out."""
    root = Path(sysconfig.get_path("stdlib"))
    aside = {
        "site-packages",
        "dist-packages",
        "__pycache__",
        "test",
        "tests",
        "idlelib",
        "turtledemo",
        "lib2to3",
        "__phello__",
    }
    files = [
        file
        for file in sorted(root.rglob("*.py"))
        if not aside & set(file.relative_to(root).parts) and not file.relative_to(root).parts[0].startswith("config-")
    ]
    repairs = Repairs()
    texts = [to_utf8(np.frombuffer(file.read_bytes(), np.uint8), repairs) for file in files if file.stat().st_size]
    names = [file.relative_to(root).as_posix() for file in files if file.stat().st_size]
    return Texts(files_as_rows(texts), name="python-source", names=names, unit="file", notes=repairs.notes())


def at_hand(name: str) -> Path:
    """A larger real data set below $PAPERTRIAL_DATA, such as `images/mnist`. Raises Declined where it is not there.

    Claims that need more than scikit-learn's data ask for it; without it they are `not run`.
    """
    folder = os.environ.get("PAPERTRIAL_DATA", "")
    path = Path(folder) / name
    if not folder or not path.exists():
        raise Declined(f"needs {name}, which is not below PAPERTRIAL_DATA", "set it to a folder that holds it")
    return path
