"""The claims of SimCSE, and the experiments that try them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from papertrial.claims._lab import data, trial
from papertrial.core.paper import Curve, Figure, Measured, claim
from papertrial.data.texts import Pairs
from papertrial.nn.contrastive import alignment, info_nce, uniformity
from papertrial.nn.transformer import Encoder, Ids, bert_layout
from papertrial.papers import simcse as paper


@claim(
    "The loss is the written-out equation, in value and gradient, with hard negatives and their weight.",
    where="eq. 1 and 5; the weight as in the authors' code",
    kind="identity",
)
def loss_is_the_equation(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    h, plus, minus = (torch.randn(12, 7, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3))
    ours = info_nce(h, plus, 0.05, minus, log_weight=1.0)
    right, wrong = (torch.cosine_similarity(h[:, None], x[None], -1).div(0.05).exp() for x in (plus, minus))
    weighted = wrong + wrong.diagonal().diag() * (torch.e - 1)
    plain = -(right.diagonal() / (right.sum(1) + weighted.sum(1))).log().mean()
    gaps = [
        float((a - b).abs().max() / b.abs().max())
        for x in (h, plus, minus)
        for a, b in [[torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in (ours, plain)]]
    ]
    measured = {"value_gap": float((ours - plain).detach().abs() / plain.detach()), "gradient_gap": max(gaps)}
    return max(measured.values()) < 1e-9, measured


@claim(
    "Alignment and uniformity are blind to rotation and length; of a collapsed space both are 0 and the loss is log B.",
    where="sec. 2.3, eq. 2 and 3",
    kind="property",
)
def figures_of_the_space(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 64, 16, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64)).Q
    length = torch.rand(64, 1, generator=generator, dtype=torch.float64) + 0.1
    moved = [(x @ turn) * length for x in (first, second)]
    same = first[:1].expand(64, -1)
    measured = {
        "alignment_gap": float((alignment(*moved) - alignment(first, second)).abs()),
        "uniformity_gap": float((uniformity(moved[0]) - uniformity(first)).abs()),
        "collapsed": float(alignment(same, same) + uniformity(same).abs()),
        "collapsed_loss_gap": abs(float(info_nce(same, same, 0.05)) - float(np.log(64))),
    }
    return max(measured.values()) < 1e-9, measured


@claim(
    "An encoder pools as it was trained to, whatever the settings it is read back with.",
    where="authors' code, --pooler_type; princeton-nlp/SimCSE#25, #100, #208",
    kind="property",
)
def pooling_is_kept(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    torch.manual_seed(seed)
    ids = torch.randint(1, 50, (4, 9))
    layout = bert_layout(16, 3, 2, 32)
    gaps = []
    for pooling in ("avg", "cls_before_pooler", "avg_top2", "avg_first_last"):
        trained = paper.SentenceEncoder(Encoder(Ids(50), layout), pooling).eval()
        other = paper.SentenceEncoder(Encoder(Ids(50), layout), "avg").eval()
        other.load_state_dict(trained.state_dict())
        gaps.append(float((trained(ids) - other(ids)).detach().abs().max()))
    return max(gaps) == 0, {"gap": max(gaps)}


def _sts() -> Pairs:
    """STS-B in English: its training and its test pairs."""
    parts = [data(f"sts/stsb/stsb-en-{name}.csv") for name in ("train", "test")]
    texts = [list(part.first.texts()) + list(part.second.texts()) for part in parts]
    pairs = [pair for half in texts for pair in zip(half[: len(half) // 2], half[len(half) // 2 :], strict=True)]
    side = np.repeat([0, 2], [len(part) for part in parts])
    return Pairs.from_strings(pairs, np.concatenate([part.scores for part in parts]), side, name="sts-b")


@cache
def _judged(
    scale: str, seed: int, dropout: float = 0.1, augment: str = "none", trained: bool = True, mlm: float = 0.0
) -> dict[str, float]:
    """Spearman, alignment and uniformity on the test pairs of STS-B, with the first two layers of MiniLM."""
    steps = {"tiny": 4}.get(scale, paper.recipes["base"].budget.steps) if trained else 0
    found = trial(
        "simcse", "sentence_similarity", _sts(), seed, steps=steps, config={"dropout": dropout, "augment": augment, "mlm": mlm},
        backbone="minilm:2",
    )  # fmt: skip
    extra = found.task.extra_scores(found.model, found.prepared, seed)
    return {"spearman": float(found.metrics["spearman"]), **extra}


@claim(
    "Against the untrained encoder, the rank correlation rises by 0.04 and uniformity improves by 0.3.",
    where="table 5 and fig. 3, there BERT-base on seven tasks, here two layers of MiniLM on STS-B",
    kind="trend",
    cost={"tiny": "20 s cpu", "base": "40 s cpu"},
)
def better_than_untrained(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    before, after = _judged(scale, seed, trained=False), _judged(scale, seed)
    measured = {f"{name}_before": value for name, value in before.items()}
    measured |= {f"{name}_after": value for name, value in after.items()}
    gained = after["spearman"] - before["spearman"] - 0.04
    measured["margin"] = min(gained, before["uniformity"] - after["uniformity"] - 0.3)
    return measured["margin"] >= 0, measured


def _against(scale: str, seed: int, augment: str) -> tuple[bool, dict[str, float]]:
    measured = {
        "dropout": _judged(scale, seed)["spearman"],
        augment: _judged(scale, seed, augment=augment)["spearman"],
    }
    measured["margin"] = measured["dropout"] - measured[augment] + 0.01
    return measured["margin"] >= 0, measured


@claim(
    "Dropout alone is at most a point behind deleting 15 % of the tokens.",
    where="table 1, there words, BERT-base and the development set of STS-B",
    kind="trend",
    cost={"tiny": "20 s cpu", "base": "40 s cpu"},
)
def dropout_is_as_good_as_deletion(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    return _against(scale, seed, "deletion")


@claim(
    "Dropout alone is at most a point behind cropping away 15 % of the tokens.",
    where="table 1, there BERT-base and the development set of STS-B",
    kind="trend",
    cost={"tiny": "20 s cpu", "base": "40 s cpu"},
)
def dropout_is_as_good_as_cropping(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    return _against(scale, seed, "cropping")


def _over_rates(measured: Measured) -> Figure:
    return Figure(
        "Rank correlation by rate of dropout",
        "dropout",
        "Spearman",
        (Curve.over_seeds("SimCSE", measured, "dropout_{}"),),
        "On the test pairs of STS-B, two layers of MiniLM after 40 steps. The paper has its maximum at 0.1.",
    )


@claim(
    "Dropout is necessary: without it the rank correlation is at least a point lower.",
    where="table 3, there 71.1 against 82.5 with BERT-base after an epoch; not expected after 40 steps of a small encoder",
    kind="trend",
    cost={"tiny": "30 s cpu", "base": "60 s cpu"},
    plot=_over_rates,
)
def dropout_is_necessary(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {f"dropout_{rate}": _judged(scale, seed, dropout=rate)["spearman"] for rate in (0.0, 0.1, 0.3)}
    measured["margin"] = measured["dropout_0.1"] - measured["dropout_0.0"] - 0.01
    return measured["margin"] >= 0, measured


@claim(
    "The auxiliary objective, hidden tokens restored at a weight of 0.1, lowers the rank correlation of sentence pairs.",
    where="sec. 6.1 and the ablation of the objective, there BERT-base, where it helps on tasks of transfer and not on these",
    kind="trend",
    cost={"tiny": "20 s cpu", "base": "60 s cpu"},
)
def restoring_tokens_costs_similarity(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {f"mlm_{weight}": _judged(scale, seed, mlm=weight)["spearman"] for weight in (0.0, 0.1)}
    measured["margin"] = measured["mlm_0.0"] - measured["mlm_0.1"]
    return measured["margin"] > 0, measured
