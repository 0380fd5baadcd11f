"""The API reference: a page for each layer, with the docstrings of its public modules (mkdocstrings reads the sources)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import papertrial

_ROOT = Path(papertrial.__file__).parent
#: layer -> what it is, lowest first; the shelf has pages of its own
LAYERS = {
    "core": "what things are: papers, tasks, recipes, budgets, runs, statistics",
    "nn": "blocks that methods are made of",
    "data": "from what you have to arrays",
    "tasks": "the contract between data and method",
    "train": "the one training loop",
    "baselines": "what papers are compared with",
    "use": "one method, from training to answers",
    "claims": "the trial of each paper",
    "discover": "from reading to running: index and search",
    "study": "questions about methods: compare, check, measure, estimate, report",
    "app": "the command line and the pages in the browser",
}
_FACE = """# papertrial

```python
import papertrial as pt
```

The names below are all that most programs need. Importing papertrial imports no torch; each function imports what it needs when it is called.
`papertrial.load` and `doctor` are called `loaded` and `checks` where they are written.

::: papertrial.data.open.open
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.suitability.look
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.core.page.read
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.core.registry.reading_list
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.core.registry.papers
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.fit.fit
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.asked.loaded
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.asked.predict
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.asked.evaluate
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.asked.embed
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.asked.generate
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.export.export
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.eject.eject
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.study.compare.compare
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.study.estimate.estimate
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.study.report.report
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.study.check.check
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.study.measure.measure
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.discover.index.index
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.discover.search.search
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.app.new.new
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.doctor.checks
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.use.artifact.Artifact
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.sklearn.Classifier
    options: {heading_level: 2, show_root_heading: true}

::: papertrial.sklearn.Regressor
    options: {heading_level: 2, show_root_heading: true}
"""


def pages() -> Iterator[tuple[str, str]]:
    """Name and Markdown of each page."""
    yield "papertrial", _FACE
    for layer, words in LAYERS.items():
        modules = list(_modules(layer))
        if modules:
            parts = [f"# papertrial.{layer}", f"{words[0].upper()}{words[1:]}.", *(f"::: {name}" for name in modules)]
            yield layer, "\n\n".join(parts) + "\n"
    yield (
        "testing",
        "# papertrial.testing\n\nThe battery that every paper passes, also for papers of other packages.\n\n::: papertrial.testing\n",
    )


def _modules(layer: str) -> Iterator[str]:
    for file in sorted((_ROOT / layer).rglob("*.py")):
        parts = file.relative_to(_ROOT).with_suffix("").parts
        inside = "templates" in parts  # the stand-ins of `papertrial new` are text
        if file.name != "__init__.py" and not inside and not any(part.startswith("_") for part in parts):
            yield ".".join(["papertrial", *parts])
        elif file.name == "__init__.py" and len(parts) > 2 and not inside and _speaks(file):
            yield ".".join(["papertrial", *parts[:-1]])


def _speaks(file: Path) -> bool:
    """Whether a package's own file defines something."""
    text = file.read_text(encoding="utf-8")
    return "\ndef " in text or "\nclass " in text
