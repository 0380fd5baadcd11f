"""RTDL - a transformer over table columns, a ResNet and an MLP, against tuned boosted trees.
Gorishniy, Rubachev, Khrulkov, Babenko, NeurIPS 2021, arXiv 2106.11959

The idea
    Most of what was proposed for tables loses to two simple models when all are tuned alike: a ResNet, and a
    transformer whose tokens are the columns of one row. Boosted trees still win on many tables.

The equation
    token of a number     T_j = b_j + x_j W_j            token of a category   T_j = b_j + E_j[x_j]    (sec. 3.3)
    FT-Transformer        X = [CLS, T_1 .. T_k];  X <- X + Attention(LN(X));  X <- X + FFN(LN(X));  L times
                          FFN(x) = V (a * relu(b)) with [a, b] = U x;  y = Linear(relu(LN(CLS)))
    ResNet                x <- x + V relu(U BN(x)), n times;  y = Linear(relu(BN(x)))                  (sec. 3.2)
    input                 z_j = Phi^-1(F_j(x_j)), with F_j the quantiles of the training rows          (supplement)

What matters
    No norm before the first attention; no weight decay on tokens, norms and biases; quantiles of training rows only.
    The last block needs the CLS row alone: the other tokens are read but not updated.

Requires / Offers
    A table with a target. Predicts; embeds a row; numeric, categorical or both; missing values and unseen categories.

Relations
    Against `catboost`, `xgboost`, `lightgbm`, tuned within the same budget.

Try
    papertrial fit rtdl --data table.csv --target y        papertrial fit rtdl:resnet --data table.csv --target y

Cost
    tiny: seconds. base: a minute on one core for 20 000 rows and 8 columns. paper: one GPU, 15 seeds, 100 trials each.

Notation
    B rows, F numeric columns, C categorical columns, D width, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.attention import Attention, attend

PAPER = Paper(
    id="rtdl",
    title="Revisiting Deep Learning Models for Tabular Data",
    kind="architecture",
    idea="A transformer whose tokens are the columns of a row, and a plain ResNet, are the nets to beat on tables.",
    authors="Yury Gorishniy, Ivan Rubachev, Valentin Khrulkov, Artem Babenko",
    year=2021,
    arxiv="2106.11959",
    month="2021-07",
    method="FTTransformer",
    tasks=("tabular",),
    tags=("tables", "transformer", "resnet", "mlp"),
    baselines=("catboost", "xgboost", "lightgbm"),
    official="https://github.com/yandex-research/rtdl-revisiting-models",
    licence="Apache-2.0",
    caveats=(
        "The authors' own committed runs on California Housing keep tuned CatBoost (RMSE 0.430) ahead of the tuned FT-Transformer (0.459).",
        "Defaults trail tuned settings: 0.469 against 0.459 for the FT-Transformer on California Housing (authors' runs).",
        "The authors' quantile noise is 1e-3 over a column's spread, which drowns columns in small units (lib/data.py); here it is 1e-3 of the spread.",
        "Attention is quadratic in the number of columns; the authors compress keys and values on the widest table.",
    ),
)


def _columns(facts: Facts) -> int:
    return facts.numeric + len(facts.cardinalities)


@checked
@dataclass(frozen=True)
class Config:
    model: str = sourced("ft_transformer", "sec. 3", "ft_transformer | resnet | mlp")
    depth: int = sourced(3, "authors' package, default FT-Transformer", "[1, 256]")
    # The default of 192 takes a CPU several minutes on 20 000 rows and gains little there.
    width: int = sourced(
        192,
        "authors' package, default FT-Transformer",
        "[2, 65536], multiple of heads if model=ft_transformer",
        auto=lambda facts: 64 if facts.examples < 100_000 else None,
    )
    heads: int = sourced(8, "authors' package, default FT-Transformer", "[1, 1024]")
    expansion: float = sourced(4 / 3, "authors' package, default FT-Transformer; hidden width over width", "[0.5, 64]")
    attention_dropout: float = sourced(0.2, "authors' package, default FT-Transformer of 3 blocks", "[0, 1)")
    hidden_dropout: float = sourced(0.1, "authors' package, default FT-Transformer of 3 blocks", "[0, 1)")
    residual_dropout: float = sourced(0.0, "authors' package, default FT-Transformer", "[0, 1)")
    # 0 is off
    compression: float = sourced(
        0.0,
        "supplement: 0.064 on Epsilon (2 000 columns)",
        "[0, 1]",
        auto=lambda facts: 0.064 if _columns(facts) > 500 else None,
    )
    sharing: str = sourced("headwise", "authors' package", "headwise | key-value")
    category_width: int = sourced(16, "papertrial default; resnet and mlp, the authors tune 64 to 512", "[1, 65536]")
    noise: float = sourced(1e-3, "authors' repository, lib/data.py", "[0, 100]")


def reglu(x: Tensor) -> Tensor:
    """a * relu(b) for x = [a, b]: (..., 2 D) -> (..., D). (Shazeer 2020, eq. 6)"""
    value, gate = x.chunk(2, dim=-1)
    return value * F.relu(gate)


def quantile_count(rows: int) -> int:
    """How many quantiles describe a column of `rows` training rows. (authors' repository, lib/data.py)"""
    return max(min(rows // 30, 1000), 10)


#: where scikit-learn's QuantileTransformer cuts: the normal quantile of 1e-7
_CUT = 5.1993375821928165


class QuantileNormal(nn.Module):
    """Each column through its own quantile function into a standard normal. `forward((B, F)) -> (B, F)`, NaN allowed.

    As scikit-learn's QuantileTransformer: linear between quantiles, the middle of the range where a value is repeated,
    cut at +-5.2 outside of the training range. Missing values take the training mean first.
    Before `fit` the inputs are taken to be standard normal already.
    """

    mean: Tensor
    quantiles: Tensor

    def __init__(self, columns: int, count: int, noise: float = 1e-3) -> None:
        super().__init__()
        self.noise = noise
        normal = torch.special.ndtri(torch.linspace(0, 1, count)).clamp(-_CUT, _CUT)
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("quantiles", normal.expand(columns, -1).clone())

    @torch.no_grad()
    def fit(self, values: np.ndarray) -> None:
        """Take mean and quantiles from the training rows `values` (N, F); raises ValueError for another F."""
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise ValueError(f"the values have the shape {values.shape}, but there are {len(self.mean)} columns")
        levels = np.linspace(0, 1, self.quantiles.shape[1])
        draw = np.random.default_rng(0)
        for index in range(values.shape[1]):  # one at a time: a wide table stays on disk
            column = np.asarray(values[:, index], dtype=np.float64)
            known = np.isfinite(column)
            mean = column[known].mean() if known.any() else 0.0
            column = np.where(known, column, mean)
            # Noise spreads a repeated value over its range of quantiles, so that it maps to the middle of that range.
            # DIFF: relative to the column's spread; the authors divide by the spread, so that the result depends on
            # the unit of the column (a spread of 0.01 drowns in noise of 0.1).
            column += self.noise * column.std() * draw.standard_normal(len(column))
            self.mean[index] = mean
            self.quantiles[index] = torch.from_numpy(np.maximum.accumulate(np.quantile(column, levels)))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 0:
            return x
        x = torch.where(x.isnan(), self.mean, x).T.contiguous()
        knots = self.quantiles
        first, last, steps = knots[:, :1], knots[:, -1:], knots.shape[1] - 1
        below, upto = torch.searchsorted(knots, x), torch.searchsorted(knots, x, right=True)
        left, right = (below - 1).clamp(0, steps - 1), below.clamp(1, steps)
        gap = (knots.gather(1, right) - knots.gather(1, left)).clamp_min(torch.finfo(x.dtype).tiny)
        rank = torch.where(upto > below, (below + upto - 1) / 2, left + (x - knots.gather(1, left)) / gap) / steps
        # DIFF: scikit-learn also cuts what lies within 1e-7 of the range's ends, whatever the unit of the column.
        rank = torch.where(x <= first, 0, torch.where(x >= last, 1, rank))
        # DIFF: a constant column tells nothing and becomes 0; scikit-learn makes it -5.2.
        return torch.where(first == last, 0, torch.special.ndtri(rank).clamp(-_CUT, _CUT)).T


class Categories(nn.Module):
    """One table for the categories of all columns. `forward((B, C) int64) -> (B, C, D)`; code == cardinality: unseen."""

    offsets: Tensor

    def __init__(self, cardinalities: Sequence[int], width: int) -> None:
        super().__init__()
        sizes = torch.tensor([0, *(size + 1 for size in cardinalities)])
        self.register_buffer("offsets", sizes.cumsum(0)[:-1], persistent=False)
        self.weight = nn.Parameter(torch.empty(int(sizes.sum()), width).uniform_(-(width**-0.5), width**-0.5))
        # DIFF: the row of unseen categories starts at zero; the authors leave it random, and training rarely meets it.
        with torch.no_grad():
            self.weight[sizes[1:].cumsum(0) - 1] = 0

    def forward(self, codes: Tensor) -> Tensor:
        return F.embedding(codes + self.offsets, self.weight)


class Tokenizer(nn.Module):
    """The columns of a row as tokens behind a CLS token: (B, F) float and (B, C) int64 -> (B, 1 + F + C, D)."""

    def __init__(self, numeric: int, cardinalities: Sequence[int], width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.cls = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        self.weight = nn.Parameter(torch.empty(numeric, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(numeric + len(cardinalities), width).uniform_(-bound, bound))
        self.categories = Categories(cardinalities, width) if cardinalities else None

    def forward(self, numeric: Tensor, categorical: Tensor | None = None) -> Tensor:
        tokens = numeric.unsqueeze(-1) * self.weight
        if self.categories is not None:
            tokens = torch.cat([tokens, self.categories(categorical)], dim=1)
        return torch.cat([self.cls.expand(tokens.shape[0], 1, -1), tokens + self.bias], dim=1)


class CompressedAttention(Attention):
    """Attention whose N keys and values are mixed down to `kept` by learned linear maps (Linformer, arXiv 2006.04768).

    sharing: `headwise` has one map for keys and one for values, `key-value` the same map for both.
    """

    def __init__(self, width: int, heads: int, dropout: float, tokens: int, kept: int, sharing: str) -> None:
        super().__init__(width, heads, dropout)
        if sharing not in ("headwise", "key-value"):
            raise ValueError(f"sharing is {sharing!r}, not 'headwise' or 'key-value'")
        self.key_map = nn.Linear(tokens, kept, bias=False)
        self.value_map = nn.Linear(tokens, kept, bias=False) if sharing == "headwise" else None

    def forward(self, query: Tensor, context: Tensor | None = None) -> Tensor:  # type: ignore[override]
        context = query if context is None else context
        value_map = self.key_map if self.value_map is None else self.value_map
        keys = self.key_map(self.key(context).transpose(1, 2)).transpose(1, 2)
        values = value_map(self.value(context).transpose(1, 2)).transpose(1, 2)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.query(query), keys, values))
        mixed = attend(q, k, v, dropout=self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Pre-norm attention and ReGLU network: (B, N, D) -> (B, N, D), or (B, queries, D) for the first tokens only."""

    def __init__(
        self, attention: Attention, width: int, hidden: int, dropout: float, residual: float, norm: bool
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.attention = attention
        self.ffn_norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * hidden)
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, width)
        self.residual = nn.Dropout(residual)
        for layer in (attention.query, attention.key, attention.value, attention.out):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        context = self.attention_norm(x)
        x = x[:, :queries] + self.residual(self.attention(context[:, :queries], context))
        return x + self.residual(self.narrow(self.dropout(reglu(self.wide(self.ffn_norm(x))))))


class FTTransformer(nn.Module):
    """Feature tokenizer and transformer. `forward((B, F) float, (B, C) int64) -> (B, D)`, the last CLS token. (sec. 3.3)

    Inputs are already scaled; a column of C has codes 0 .. cardinality, the last for unseen or missing.
    compression: share of the keys and values that is kept, 0 for all.  Raises ValueError without columns.
    """

    def __init__(
        self,
        numeric: int,
        cardinalities: Sequence[int] = (),
        depth: int = 3,
        width: int = 192,
        heads: int = 8,
        expansion: float = 4 / 3,
        attention_dropout: float = 0.2,
        hidden_dropout: float = 0.1,
        residual_dropout: float = 0.0,
        compression: float = 0.0,
        sharing: str = "headwise",
    ) -> None:
        super().__init__()
        columns = numeric + len(cardinalities)
        if columns == 0:
            raise ValueError("a table without columns has nothing to learn from")
        self.width = width
        self.tokenizer = Tokenizer(numeric, cardinalities, width)

        # DIFF: with one head the authors leave the output map out; here it is always there.
        def attention() -> Attention:
            if not compression:
                return Attention(width, heads, attention_dropout)
            kept = max(int((1 + columns) * compression), 1)
            return CompressedAttention(width, heads, attention_dropout, 1 + columns, kept, sharing)

        self.blocks = nn.ModuleList(
            Block(attention(), width, int(width * expansion), hidden_dropout, residual_dropout, norm=index > 0)
            for index in range(depth)
        )

    def forward(self, numeric: Tensor, categorical: Tensor | None = None) -> Tensor:
        x = self.tokenizer(numeric, categorical)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.blocks[-1](x, queries=1)[:, 0]

    def tokens(self, numeric: Tensor, categorical: Tensor | None = None) -> Tensor:
        """All tokens after the last block, (B, 1 + F + C, D), CLS first."""
        x = self.tokenizer(numeric, categorical)
        for block in self.blocks:
            x = block(x)
        return x

    def make_head(self, outputs: int) -> nn.Module:
        return nn.Sequential(nn.LayerNorm(self.width), nn.ReLU(), nn.Linear(self.width, outputs))

    def no_decay(self) -> set[str]:
        """Tokenizer, CLS, norms and biases; the authors decay only the weights of linear maps."""
        kept = {name for name, parameter in self.named_parameters() if parameter.ndim <= 1}
        return kept | {f"tokenizer.{name}" for name, _ in self.tokenizer.named_parameters()}


class ResNet(nn.Module):
    """Residual blocks of batch norm, linear, ReLU, linear. `forward((B, inputs)) -> (B, D)`. (sec. 3.2)"""

    def __init__(
        self,
        inputs: int,
        depth: int = 2,
        width: int = 192,
        expansion: float = 2.0,
        hidden_dropout: float = 0.15,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        hidden = int(width * expansion)
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width),
                nn.Linear(width, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(hidden_dropout),
                nn.Linear(hidden, width),
                nn.Dropout(residual_dropout),
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return x

    def make_head(self, outputs: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(self.width), nn.ReLU(inplace=True), nn.Linear(self.width, outputs))


class MLP(nn.Module):
    """Linear, ReLU and dropout, `depth` times. `forward((B, inputs)) -> (B, D)`. (sec. 3.1)"""

    def __init__(self, inputs: int, depth: int = 2, width: int = 384, hidden_dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        layers = (
            (nn.Linear(width if index else inputs, width), nn.ReLU(inplace=True), nn.Dropout(hidden_dropout))
            for index in range(depth)
        )
        self.layers = nn.Sequential(*(layer for group in layers for layer in group))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def make_head(self, outputs: int) -> nn.Module:
        return nn.Linear(self.width, outputs)


class Flat(nn.Module):
    """A ResNet or MLP on the numbers of a row beside the embeddings of its categories."""

    def __init__(self, network: nn.Module, cardinalities: Sequence[int], category_width: int) -> None:
        super().__init__()
        self.network, self.width = network, network.width
        self.categories = Categories(cardinalities, category_width) if cardinalities else None

    def forward(self, numeric: Tensor, categorical: Tensor | None = None) -> Tensor:
        if self.categories is not None:
            numeric = torch.cat([numeric, self.categories(categorical).flatten(1)], dim=1)
        return self.network(numeric)

    def make_head(self, outputs: int) -> nn.Module:
        return self.network.make_head(outputs)

    def no_decay(self) -> set[str]:
        kept = {name for name, parameter in self.named_parameters() if parameter.ndim <= 1}
        return kept | ({"categories.weight"} if self.categories is not None else set())


class TableModel(nn.Module):
    """Raw columns in, features out: `QuantileNormal`, then one of the three networks.

    `forward(numeric (B, F) float with NaN for missing, categorical (B, C) int64) -> (B, D)`.
    """

    def __init__(self, scale: QuantileNormal, network: nn.Module) -> None:
        super().__init__()
        self.scale, self.network, self.width = scale, network, network.width

    def forward(self, numeric: Tensor, categorical: Tensor | None = None) -> Tensor:
        return self.network(self.scale(numeric), categorical)

    def fit_inputs(self, columns: Mapping[str, np.ndarray]) -> None:
        """Fit the quantiles to the training rows."""
        self.scale.fit(columns["numeric"])

    def make_head(self, outputs: int) -> nn.Module:
        return self.network.make_head(outputs)

    def no_decay(self) -> set[str]:
        return {f"network.{name}" for name in self.network.no_decay()}


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> TableModel:
    """The model of `config` for data with `facts`. Raises DataError for a table without columns."""
    if _columns(facts) == 0:
        raise DataError("the table has no columns to learn from", "type: papertrial look DATA")
    if config.model == "ft_transformer":
        network: nn.Module = FTTransformer(
            facts.numeric,
            facts.cardinalities,
            config.depth,
            config.width,
            config.heads,
            config.expansion,
            config.attention_dropout,
            config.hidden_dropout,
            config.residual_dropout,
            config.compression,
            config.sharing,
        )
    else:
        inputs = facts.numeric + config.category_width * len(facts.cardinalities)
        if config.model == "resnet":
            dropouts = (config.hidden_dropout, config.residual_dropout)
            flat: nn.Module = ResNet(inputs, config.depth, config.width, config.expansion, *dropouts)
        else:
            flat = MLP(inputs, config.depth, config.width, config.hidden_dropout)
        network = Flat(flat, facts.cardinalities, config.category_width)
    return TableModel(QuantileNormal(facts.numeric, quantile_count(facts.examples), config.noise), network)


variants = {
    "ft_transformer": {},
    "resnet": {"model": "resnet", "depth": 2, "width": 192, "expansion": 2.0, "hidden_dropout": 0.15},
    "mlp": {"model": "mlp", "depth": 2, "width": 384, "hidden_dropout": 0.1},
}

recipes = {
    "paper": Recipe(
        "paper",
        config={"width": 192, "depth": 3},
        optim={
            "lr": 1e-4,
            "weight_decay": 1e-5,
            "batch": 256,
            "schedule": "constant",
            "warmup": 0.0,
            "clip": 0.0,
            "patience": 16,
        },
        source="supplement, default FT-Transformer",
        cost="5 to 10 min on one core for 20 000 rows and 8 columns",
        expect="RMSE 0.469 on California Housing, mean of 15 seeds (authors' runs)",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 1e-3, "weight_decay": 1e-5, "patience": 16},
        source="papertrial, measured on California Housing",
        cost="1 min on one core for 20 000 rows and 8 columns",
    ),
    "tiny": Recipe(
        "tiny",
        config={"depth": 2, "width": 32, "heads": 4},
        optim={"lr": 3e-3, "weight_decay": 1e-5, "batch": 64},
        budget=Budget(steps=150),
        cost="seconds on one core",
    ),
}
