"""TF-IDF - counts of words or letters, weighted by how rare they are: with logistic regression, or as a cosine.

The idea
    A text is the words in it. What is in every text says nothing, what is in few says much. It takes seconds, needs no
    weights from elsewhere, and on many data sets of a few thousand texts nothing that is trained from scratch beats it.

The equation
    x_t = (1 + log count_t) (1 + log((1 + N) / (1 + N_t))), scaled to length 1
    p(class | x) = softmax(W x + b) with penalty |W|^2 / 2C;  similarity = x . y

What matters
    Words against letters, pairs of words, and the penalty: all are chosen on the validation rows. Letters carry noisy
    text and short texts; pairs of words carry negation.

Requires / Offers
    Texts with classes, or pairs of texts with scores. Predicts. Knows no synonyms and no order beyond its pairs.

Relations
    A reference of text_classification and sentence_similarity. `tfidf_minilm` joins it with the vector of an encoder.

Try
    papertrial fit tfidf --data reviews.csv

Cost
    Seconds for 10 000 sentences.

Notation
    N training texts, N_t of them with the term t, C inverse strength of the penalty.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import sparse
from scipy.special import log_softmax, softmax
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import DataError
from papertrial.core.facts import Facts
from papertrial.core.files import read_json, write_json, write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split
from papertrial.tasks._choosing import loss_by
from papertrial.tasks._texts import beyond_characters, stacked

PAPER = Paper(
    id="tfidf",
    title="TF-IDF with logistic regression",
    kind="estimator",
    method="Tfidf",
    idea="Counts of words or letters weighted by rarity: the reference for texts, tuned on the validation rows.",
    tasks=("text_classification", "sentence_similarity"),
    tags=("text", "baseline"),
)
_TERMS = ("word:1-1", "word:1-2", "char:2-5", "word:1-2 char:2-5")
_ALONE = r"(?u)\w+|[^\w\s]"  # words of one letter and marks count: they carry mood


@checked
@dataclass(frozen=True)
class Config:
    terms: tuple[str, ...] = sourced(
        _TERMS,
        "papertrial default; tried in this order: words or letters within words, from so many to so many",
        "1 to 32 of any",
    )
    penalties: tuple[float, ...] = sourced(
        (10.0, 1.0, 100.0, 0.1), "papertrial default; values of C, tried in this order", "1 to 32 of [1e-9, 1e9]"
    )
    features: int = sourced(200_000, "papertrial default; the most frequent terms that are kept", "[1, 100000000]")
    longest: int = sourced(100_000, "papertrial default; characters read of a text", "[1, 100000000]")
    iterations: int = sourced(200, "papertrial default; most steps of the logistic solver", "[1, 1000000]")


class Terms:
    """Counts of one sort of terms (`word:1-2`), weighted; rows of length 1."""

    def __init__(self, sort: str, config: Config) -> None:
        self.sort, self.config = sort, config
        kind, _, span = sort.partition(":")
        low, _, high = span.partition("-")
        if kind not in ("word", "char") or not (low.isdigit() and high.isdigit() and 0 < int(low) <= int(high)):
            raise DataError(f"there are no terms {sort!r}", "write them as word:1-2 or char:2-5")
        self._options: dict[str, Any] = {
            "analyzer": "word" if kind == "word" else "char_wb",
            "token_pattern": _ALONE if kind == "word" else None,
            "ngram_range": (int(low), int(high)),
            "sublinear_tf": True,
            "dtype": np.float32,
        }
        self._made: Any = None

    def learn(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """The weighted counts (N, terms) of the training texts. Terms of one text alone are dropped where that leaves any."""
        for least in (2, 1):
            self._made = TfidfVectorizer(min_df=least, max_features=self.config.features, **self._options)
            try:
                return self._made.fit_transform(texts)
            except ValueError as error:
                if least == 1:
                    raise DataError(
                        f"the texts hold no terms to learn from ({error})", "give texts with words"
                    ) from None
        raise AssertionError

    def weigh(self, texts: Sequence[str]) -> sparse.csr_matrix:
        if not texts:
            return sparse.csr_matrix((0, len(self.rarity)), dtype=np.float32)
        return self._made.transform(texts)

    def vocabulary(self) -> list[str]:
        return self._made.get_feature_names_out().tolist()

    @property
    def rarity(self) -> np.ndarray:
        return self._made.idf_

    def restore(self, vocabulary: list[str], rarity: np.ndarray) -> None:
        self._made = TfidfVectorizer(vocabulary=vocabulary, **self._options)
        self._made.idf_ = rarity


class Tfidf:
    """An Estimator: the best of its terms and penalties. Classifies texts, or gives pairs their cosine."""

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        self.terms: list[Terms] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.scale = self.scales[0]

    @property
    def scales(self) -> tuple[float, ...]:
        """Of what `_beside_counts` adds; tried in this order."""
        return (0.0,)

    def _beside_counts(self, counts: sparse.csr_matrix, texts: Ragged, scale: float) -> sparse.csr_matrix:
        """The rows as the regression sees them: the counts alone."""
        return counts

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Try what the budget allows. Raises DataError without training texts or with a single class."""
        started = time.perf_counter()
        pairs = self.facts.kind == "pairs"
        if not pairs and len(np.unique(train["label"])) < 2:
            raise DataError("the training texts are of a single class", "give more texts")
        judge = valid if valid.examples else train
        texts = self._read(stacked([train["first"], train["second"]]) if pairs else train["text"])
        best, trials = (np.inf, np.inf), 0
        settings = [(0.0, 0.0)] if pairs else list(product(self.scales, self.config.penalties))

        def spent() -> bool:
            late = budget.seconds is not None and time.perf_counter() - started > budget.seconds
            return trials > 0 and (late or (budget.trials is not None and trials >= budget.trials))

        for sorts in self.config.terms:
            if spent():
                break
            terms = [Terms(sort, self.config) for sort in sorts.split()]
            learned = _beside([each.learn(texts) for each in terms])
            held = None if pairs else self._weigh(terms, judge["text"])
            for scale, inverse in settings:
                if spent():
                    break
                trials += 1
                if pairs:
                    arrays, loss = {}, self._pairs_loss(terms, judge)
                else:
                    counts = self._beside_counts(learned, train["text"], scale)
                    arrays = self._solve(counts, train["label"], inverse) | {"penalty": np.array([inverse])}
                    loss = _loss(
                        _logits(self._beside_counts(held, judge["text"], scale), arrays), judge, self.facts.metric
                    )
                if loss < best:
                    best, self.terms, self.arrays, self.scale = loss, terms, arrays, scale
        return Meter(samples=train.examples * trials, seconds=time.perf_counter() - started, trials=trials)

    def again(self, rows: Split, seed: int, found: Sequence[Path]) -> Meter:
        """Learn from all `rows` with the terms, the scale and the penalty that most of the earlier runs in these folders chose."""
        started = time.perf_counter()
        held = [copy(self).load(folder / "estimator") for folder in found]
        chosen = Counter(
            (" ".join(each.sort for each in one.terms), one.scale, float(one.arrays.get("penalty", [0.0])[0]))
            for one in held
        )
        sorts, self.scale, inverse = chosen.most_common(1)[0][0]
        pairs = self.facts.kind == "pairs"
        texts = self._read(stacked([rows["first"], rows["second"]]) if pairs else rows["text"])
        self.terms = [Terms(sort, self.config) for sort in sorts.split()]
        learned = _beside([each.learn(texts) for each in self.terms])
        self.arrays = {}
        if not pairs:
            counts = self._beside_counts(learned, rows["text"], self.scale)
            self.arrays = self._solve(counts, rows["label"], inverse) | {"penalty": np.array([inverse])}
        return Meter(samples=rows.examples, seconds=time.perf_counter() - started, trials=1)

    def most_trials(self, budget: Budget) -> int:
        settings = 1 if self.facts.kind == "pairs" else len(self.config.penalties) * len(self.scales)
        most = len(self.config.terms) * settings
        return min(most, budget.trials or most)

    def too_long(self, texts: Ragged) -> tuple[np.ndarray, str]:
        """Which texts are cut, bool (N,), and what is read of one."""
        return beyond_characters(texts, self.config.longest)

    def _read(self, texts: Ragged) -> list[str]:
        """The texts as strings, each cut to `longest` characters."""
        most = 4 * self.config.longest
        if texts.lengths.max(initial=0) > most:
            texts = Ragged.of([texts[row][:most] for row in range(len(texts))], np.uint8)
        return [text[: self.config.longest] for text in texts.texts()]

    def _weigh(self, terms: Sequence[Terms], texts: Ragged) -> sparse.csr_matrix:
        read = self._read(texts)
        return _beside([each.weigh(read) for each in terms])

    def _solve(self, features: sparse.csr_matrix, label: np.ndarray, inverse: float) -> dict[str, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of the optimum change no answer
            found = LogisticRegression(C=inverse, max_iter=self.config.iterations).fit(features, label)
        # classes that the training rows lack get no probability
        weight = np.zeros((self.facts.classes, features.shape[1]), dtype=np.float32)
        bias = np.full(self.facts.classes, -np.inf, dtype=np.float32)
        weight[found.classes_[-len(found.coef_) :]] = found.coef_
        bias[found.classes_] = [0.0, *found.intercept_] if len(found.coef_) == 1 else found.intercept_
        return {"weight": weight, "bias": bias}

    def _pairs_loss(self, terms: Sequence[Terms], split: Split) -> tuple[float, float]:
        known = np.isfinite(split["target"])
        cosine = self._cosine(terms, split)[known]
        if np.ptp(cosine) == 0 or np.ptp(split["target"][known]) == 0:
            return 0.0, 0.0
        return -float(spearmanr(cosine, split["target"][known]).statistic), 0.0

    def _cosine(self, terms: Sequence[Terms], split: Split) -> np.ndarray:
        first, second = (self._weigh(terms, split[name]) for name in ("first", "second"))
        return np.asarray(first.multiply(second).sum(axis=1), dtype=np.float64).ravel()

    def outputs(self, split: Split) -> np.ndarray:
        """Probabilities (N, classes), or cosines (N,), float64."""
        if self.facts.kind == "pairs":
            return self._cosine(self.terms, split)
        counts = self._weigh(self.terms, split["text"])
        return softmax(_logits(self._beside_counts(counts, split["text"], self.scale), self.arrays), axis=1)

    def save(self, folder: Path | str) -> None:
        folder = Path(folder)
        arrays = {**self.arrays, **{f"rarity.{place}": each.rarity for place, each in enumerate(self.terms)}}
        write_json(folder / "terms.json", [{"sort": each.sort, "terms": each.vocabulary()} for each in self.terms])
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_with(folder / "model.safetensors", lambda path: save_file(contiguous, str(path)))

    def load(self, folder: Path | str) -> Tfidf:
        arrays = load_file(str(Path(folder) / "model.safetensors"))
        self.terms = []
        for place, held in enumerate(read_json(Path(folder) / "terms.json")):
            terms = Terms(held["sort"], self.config)
            terms.restore(held["terms"], arrays.pop(f"rarity.{place}"))
            self.terms.append(terms)
        self.arrays = arrays
        return self


def _beside(parts: Sequence[sparse.csr_matrix]) -> sparse.csr_matrix:
    """Several sorts of terms as one row of length 1."""
    if len(parts) == 1:
        return parts[0]
    return (sparse.hstack(parts, format="csr") / np.sqrt(len(parts))).astype(np.float32)


def _logits(features: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(features @ arrays["weight"].T, dtype=np.float64) + arrays["bias"]


def _loss(logits: np.ndarray, judge: Split, metric: str) -> tuple[float, float]:
    """Share of wrong answers, or what `loss_by` gives, then the log loss, which decides between equal ones."""
    label, named = judge["label"], loss_by(metric, softmax(logits, axis=1), judge)
    own = log_softmax(logits, axis=1)[np.arange(len(label)), label]
    return float((logits.argmax(axis=1) != label).mean()) if named is None else named, float(-own.clip(-36).mean())


def build(config: Config, facts: Facts, backbone: Any = None) -> Tfidf:
    return Tfidf(config, facts)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny", config={"terms": ("word:1-2",), "penalties": (10.0,)})}
