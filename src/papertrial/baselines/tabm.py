"""TabM - many MLPs in one: they share nearly all weights, are trained together, and answer by their mean.

Yury Gorishniy, Akim Kotelnikov, Artem Babenko. ICLR 2025, arXiv 2410.24210. The network is the authors' package `tabm`.

The idea
    An ensemble of MLPs is far better on tables than one, and costs as many times as much. Members that differ only by
    vectors of scales cost hardly more than one, and as they are trained together they keep each other from overfitting.

The equation
    y(x) = mean over members i of f(s_i * x; shared weights, own scales and own output);  loss = mean over i of loss(y_i, y)

What matters
    The loss is the mean over members, not that of their mean. Numbers pass through their quantiles into a normal first.

Requires / Offers
    A table; the extra `tabm`. Predicts.

Relations
    Beside the boosted trees what tables are judged by today; `--against tabm` measures a verdict against it. `rtdl` has one
    MLP, a ResNet and the FT-Transformer.

Try
    papertrial fit tabm --data table.csv --target price

Cost
    A minute for 10 000 rows on one core.

Notation
    k members, s_i the first scales of one.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.special import ndtri
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import DataError
from papertrial.core.facts import Facts
from papertrial.core.files import write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.tasks._choosing import loss_by

PAPER = Paper(
    id="tabm",
    title="TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling",
    kind="estimator",
    idea="Many MLPs that share nearly all weights, trained together; they answer by their mean.",
    authors="Yury Gorishniy, Akim Kotelnikov, Artem Babenko",
    year=2024,
    arxiv="2410.24210",
    method="TabM",
    tasks=("tabular",),
    tags=("tables", "mlp", "baseline"),
    needs=("tabm",),
    official="https://github.com/yandex-research/tabm",
    licence="Apache-2.0",
)
_CHUNK = 2048


@checked
@dataclass(frozen=True)
class Config:
    members: int = sourced(32, "authors' package, default of k", "[1, 1024]")
    depth: int = sourced(3, "authors' package, default without embeddings of numbers", "[1, 256]")
    width: int = sourced(
        512, "authors' package, default", "[1, 65536]", auto=lambda facts: 128 if facts.examples < 100_000 else None
    )  # 512 takes a CPU several minutes on 10 000 rows
    dropout: float = sourced(0.1, "authors' package, default", "[0, 1)")
    lr: float = sourced(2e-3, "authors' package, its example", "[1e-9, 1000]")
    weight_decay: float = sourced(3e-4, "authors' package, its example", "[0, 100]")
    batch: int = sourced(256, "authors' package, its example", "[1, 1000000]")
    patience: int = sourced(
        16, "sec. 4 and authors' repository; epochs without a better validation score", "[1, 1000000]"
    )


class QuantileNormal(nn.Module):
    """Columns (B, F) through their training quantiles into a standard normal, missing values by the training mean.

    As scikit-learn's QuantileTransformer: the middle of the range where a value is repeated, cut at +-5.2.
    """

    def __init__(self, columns: int, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("quantiles", torch.zeros(columns, count, dtype=torch.float64))

    def fit(self, values: np.ndarray) -> None:
        for index, column in enumerate(np.asarray(values, dtype=np.float64).T):
            known = column[np.isfinite(column)]
            self.mean[index] = known.mean() if len(known) else 0.0
            filled = np.where(np.isfinite(column), column, float(self.mean[index]))
            self.quantiles[index] = torch.from_numpy(np.quantile(filled, np.linspace(0, 1, self.quantiles.shape[1])))

    def forward(self, x: Tensor) -> Tensor:
        filled = torch.where(x.isfinite(), x.double(), self.mean).numpy()
        found, levels = np.empty(filled.shape), np.linspace(0, 1, self.quantiles.shape[1])
        for index, knots in enumerate(self.quantiles.numpy()):
            column = filled[:, index]
            below, above = np.interp(column, knots, levels), 1 - np.interp(-column, -knots[::-1], levels)
            found[:, index] = ndtri(((below + above) / 2).clip(1e-7, 1 - 1e-7))
        return torch.from_numpy(found.astype(np.float32))


class Network(nn.Module):
    """`forward(numeric (B, F), categorical (B, C)) -> (B, k, outputs)`: logits, or values in units of the training rows."""

    def __init__(self, config: Config, facts: Facts) -> None:
        import tabm

        super().__init__()
        self.numbers = QuantileNormal(facts.numeric, max(min(facts.examples // 30, 1000), 10))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        # one more category each, for what is missing or was never seen
        self.members = tabm.TabM.make(
            n_num_features=facts.numeric, cat_cardinalities=[size + 1 for size in facts.cardinalities],
            d_out=facts.classes or 1, k=config.members, n_blocks=config.depth, d_block=config.width, dropout=config.dropout,
        )  # fmt: skip

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        columns = {"x_num": self.numbers(numeric)} if numeric.shape[1] else {}
        columns |= {"x_cat": categorical} if categorical.shape[1] else {}
        out: Tensor = self.members(**columns)
        return out


class TabM:
    """An Estimator: trained on the training rows, stopped by the validation rows."""

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        with torch.random.fork_rng(devices=[]):
            self.network = Network(config, facts)

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Train until the validation rows say so or the seconds are spent. Raises DataError without rows of either sort."""
        if not train.examples or not valid.examples:
            raise DataError("tabm needs training and validation rows", "give more rows")
        started = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = Network(self.config, self.facts)
            steps = self._train(train, valid, started, budget.seconds)
        return Meter(
            steps=steps, samples=steps * min(self.config.batch, train.examples),
            seconds=time.perf_counter() - started, trials=1,
        )  # fmt: skip

    def _train(self, train: Split, valid: Split, started: float, seconds: float | None) -> int:
        """How many steps. The weights of the best epoch stay."""
        network, config = self.network, self.config
        network.numbers.fit(train["numeric"])
        if not self.facts.classes:
            target = train["target"].astype(np.float64)
            network.mean.fill_(target.mean())
            network.spread.fill_(target.std() or 1.0)
        columns = [torch.from_numpy(np.ascontiguousarray(train[name])) for name in ("numeric", "categorical")]
        truth = torch.from_numpy(np.asarray(train["label" if self.facts.classes else "target"]))
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        best, kept, stale, steps, late = (np.inf, np.inf), network.state_dict(), 0, 0, False
        while stale < config.patience and not late:
            network.train()
            for rows in torch.randperm(train.examples).split(config.batch):
                optimizer.zero_grad()
                self._loss(network(*(column[rows] for column in columns)), truth[rows]).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                steps += 1
                late = seconds is not None and time.perf_counter() - started > seconds
                if late:
                    break
            found = self._judged(valid)
            stale += 1
            if found < best:
                best, kept, stale = found, copy.deepcopy(network.state_dict()), 0
        network.load_state_dict(kept)
        return steps

    def _loss(self, out: Tensor, truth: Tensor) -> Tensor:
        """The mean over members of each one's own loss."""
        if self.facts.classes:
            return F.cross_entropy(out.flatten(0, 1), truth.repeat_interleave(out.shape[1]))
        wanted = (truth - self.network.mean) / self.network.spread
        return F.mse_loss(out[..., 0], wanted[:, None].expand(-1, out.shape[1]))

    def _judged(self, split: Split) -> tuple[float, float]:
        """What the rows are judged by, lower being better; the log loss decides between equal ones."""
        out = self.outputs(split)
        asked = loss_by(self.facts.metric, out, split)
        if not self.facts.classes:
            return float(np.sqrt(np.mean((out - split["target"]) ** 2))) if asked is None else asked, 0.0
        log_loss = -np.log(out[np.arange(len(out)), split["label"]].clip(1e-15)).mean()
        wrong = float((out.argmax(1) != split["label"]).mean())
        return wrong if asked is None else asked, float(log_loss)

    def most_trials(self, budget: Budget) -> int:
        return 1

    @torch.no_grad()
    def outputs(self, split: Split) -> np.ndarray:
        """Probabilities (N, classes) or values (N,), float64: the mean over members."""
        self.network.eval()
        found = [np.zeros((0, self.facts.classes) if self.facts.classes else 0)]
        for first in range(0, split.examples, _CHUNK):
            rows = slice(first, first + _CHUNK)
            columns = (torch.from_numpy(np.ascontiguousarray(split[name][rows])) for name in ("numeric", "categorical"))
            out = self.network(*columns).double()
            mean = out.softmax(-1).mean(1) if self.facts.classes else out[..., 0].mean(1)
            found.append((mean if self.facts.classes else self.network.mean + self.network.spread * mean).numpy())
        return np.concatenate(found)

    def save(self, folder: Path | str) -> None:
        held = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        write_with(Path(folder) / "model.safetensors", lambda path: save_file(held, str(path)))

    def load(self, folder: Path | str) -> TabM:
        self.network.load_state_dict(load_file(str(Path(folder) / "model.safetensors")))
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> TabM:
    return TabM(config, facts)


recipes = {
    "paper": Recipe("paper", config={"width": 512}, source="authors' package, its defaults", cost="minutes on a GPU"),
    "base": Recipe("base"),
    "tiny": Recipe(
        "tiny",
        config={"members": 4, "depth": 1, "width": 16, "patience": 4, "batch": 64, "lr": 1e-2},
        cost="seconds on one core",
    ),
}
