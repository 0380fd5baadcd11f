"""BERTScore - each token of one text finds the most similar one in the other, by the vectors of a trained encoder.

Tianyi Zhang, Varsha Kishore, Felix Wu, Kilian Q. Weinberger, Yoav Artzi. ICLR 2020, arXiv 1904.09675.

The idea
    Words that mean the same have vectors alike, which a count of equal words cannot see.

The equation
    R = sum_i w_i max_j <x_i, y_j> / sum_i w_i,  P = sum_j w_j max_i <x_i, y_j> / sum_j w_j,  F = 2 P R / (P + R)

What matters
    The matching is greedy: several tokens may choose one. With `idf` rare tokens count more, w = log((M + 1) / (m + 1));
    without it all count one.

Requires / Offers
    Outputs with references in English, and the extra `encoder`, whose weights come with it. Predicts F.

Relations
    `bleu` and `rouge` count equal words. `bertscore:idf` weighs them.

Try
    papertrial compare bertscore bertscore:idf rouge --data judged.csv

Cost
    Some hundred short texts a second of one core.

Notation
    x, y unit vectors of the tokens of the reference and of the output, w their weights; m of the M training references have
    a token.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import write_json, write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split
from papertrial.nn.tokenise import longer

PAPER = Paper(
    id="bertscore",
    title="BERTScore: Evaluating Text Generation with BERT",
    kind="estimator",
    method="BertScore",
    idea="Tokens of output and reference are matched by their vectors in context.",
    authors="Tianyi Zhang, Varsha Kishore, Felix Wu, Kilian Q. Weinberger, Yoav Artzi",
    year=2020,
    arxiv="1904.09675",
    tasks=("human_judgement",),
    tags=("text", "baseline", "metric", "pretrained"),
    official="https://github.com/Tiiiger/bert_score",
    licence="MIT",
    needs=("encoder", "text"),
    caveats=(
        "The encoder is MiniLM-L6, not the paper's RoBERTa-large: values are not comparable with published ones.",
        "Layers are not chosen on human scores as in the paper: the last one is taken.",
    ),
)
_ROWS = 64


@checked
@dataclass(frozen=True)
class Config:
    idf: bool = sourced(False, "authors' repository, the default")
    layers: int = sourced(6, "papertrial default: all of MiniLM; the paper chooses a layer on WMT16 (app. B)", "[1, 6]")
    longest: int = sourced(512, "the encoder's places", "[3, 512]")


class Side(NamedTuple):
    """Texts of a batch: vectors (B, N, D) of any length, weights (B, N), and bool (B, N): where a token stands."""

    vectors: Tensor
    weights: Tensor
    tokens: Tensor


def matched(reference: Side, output: Side) -> tuple[Tensor, Tensor, Tensor]:
    """(precision, recall, F), each (B,), by greedy matching. A text without tokens, or whose tokens weigh nothing, has 0."""
    x, y = (nn.functional.normalize(side.vectors, dim=-1) for side in (reference, output))
    alike = x @ y.mT
    alike = alike.masked_fill(~(reference.tokens[:, :, None] & output.tokens[:, None, :]), -1.0)
    recall, precision = _mean(alike.amax(-1), reference), _mean(alike.amax(-2), output)
    there = reference.tokens.any(-1) & output.tokens.any(-1)
    recall, precision = (torch.where(there, side, 0.0) for side in (recall, precision))
    together = precision + recall
    f = torch.where(together != 0, 2 * precision * recall / torch.where(together != 0, together, 1.0), 0.0)
    return precision, recall, f


def _mean(best: Tensor, side: Side) -> Tensor:
    weight = side.weights * side.tokens
    total = weight.sum(-1)
    return torch.where(total > 0, (weight * best).sum(-1) / torch.where(total > 0, total, 1.0), 0.0)


class BertScore:
    """An Estimator: idf counts the training references. rarity: float32 (tokens,), the weight of each."""

    def __init__(self, config: Config) -> None:
        from papertrial.nn import pretrained

        self.config = config
        self.encoder: Any = pretrained.find("minilm", depth=config.layers).load().eval()
        self.rarity = np.ones(len(self.encoder.embed.table.weight), np.float32)

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        started = time.perf_counter()
        if self.config.idf:
            # DIFF: the paper counts the references it scores; here those of the training rows, so that an answer does not
            # depend on what else is asked
            ids = self._ids(train["reference"])
            row = np.repeat(np.arange(len(ids)), ids.lengths)
            having = np.bincount(
                np.unique(row * len(self.rarity) + ids.values) % len(self.rarity), minlength=len(self.rarity)
            )
            self.rarity = np.log((len(ids) + 1) / (having + 1)).astype(np.float32)
        return Meter(samples=train.examples, seconds=time.perf_counter() - started, trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def outputs(self, split: Split) -> np.ndarray:
        """F (N,) float64."""
        sides = [self._ids(split[name]) for name in ("reference", "output")]
        found = np.zeros(split.examples)
        order = np.argsort(np.maximum(*(side.lengths for side in sides)), kind="stable")  # rows of like length together
        for first in range(0, len(order), _ROWS):
            rows = order[first : first + _ROWS]
            found[rows] = matched(*(self._side(ids[rows]) for ids in sides))[2].double().numpy()
        return found

    def too_long(self, texts: Ragged) -> tuple[np.ndarray, str]:
        """Which texts are cut, bool (N,), and what is read of one."""
        longest = self.config.longest
        return longer(self.encoder.tokeniser, texts, longest), f"{longest:,} tokens"

    def _ids(self, texts: Ragged) -> Ragged:
        return self.encoder.tokeniser.encode(texts, longest=self.config.longest)

    def _side(self, ids: Ragged) -> Side:
        """The tokens of the texts without the separators at both ends."""
        # DIFF: the authors' code lets tokens match a separator too; the equation knows tokens of the text alone
        padded = torch.from_numpy(ids.padded().astype(np.int64))
        place = torch.arange(padded.shape[1])
        inside = (place > 0) & (place < torch.from_numpy(ids.lengths)[:, None] - 1)
        with torch.inference_mode():
            return Side(self.encoder.tokens(padded), torch.from_numpy(self.rarity)[padded], inside)

    def save(self, folder: Path | str) -> None:
        write_json(
            Path(folder) / "bertscore.json", {"encoder": "minilm", "layers": self.config.layers, "idf": self.config.idf}
        )
        write_with(Path(folder) / "model.safetensors", lambda path: save_file({"rarity": self.rarity}, str(path)))

    def load(self, folder: Path | str) -> BertScore:
        self.rarity = load_file(str(Path(folder) / "model.safetensors"))["rarity"]
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> BertScore:
    """Raises PapertrialError without the extra `encoder`."""
    return BertScore(config)


variants = {"idf": {"idf": True}}

recipes = {
    # DIFF: the paper's encoder is RoBERTa-large with its 17th layer; MiniLM is what a package carries
    "paper": Recipe("paper", config={"idf": True}, source="sec. 3: with importance weighting", cost="seconds on a CPU"),
    "base": Recipe("base", source="authors' repository: without importance weighting", cost="seconds on a CPU"),
    "tiny": Recipe("tiny", config={"layers": 1}, source="small enough for tests", cost="seconds on a CPU"),
}
