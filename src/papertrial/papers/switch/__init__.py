"""Switch Transformers - one expert per token: more weights at the same work for each token.

William Fedus, Barret Zoph, Noam Shazeer. JMLR 23 (2022), arXiv 2101.03961.

The idea
    Replace the perceptron of every other layer by many of them, the experts. A router, one linear map, sends each token to
    the one expert that it finds most probable. Each token costs what it cost before, and the model has many times the
    weights. What the router does not balance by itself, an auxiliary loss balances.

The equation
    p = softmax(W x);  y = p_e E_e(x) with e = argmax p                      (eq. 1 and 2, with a single expert)
    capacity = tokens / experts * factor                                       (eq. 3)
    loss += alpha N sum_i f_i P_i                                              (eq. 4 to 6)
    with f_i the share of tokens that want expert i, and P_i the mean of p_i. It is alpha where the router is uniform.

What matters
    The router computes in float32, whatever the rest does. Its input is multiplied by noise in training. An expert has room
    for so many tokens of a batch; those who come later, in the order of the batch, pass by on the residual branch alone.
    Weights start ten times smaller in variance. Text of one kind gains little: experts want something to divide up.

Requires / Offers
    Requires texts. Offers next tokens (`logits`, causal), embed, tokens (B, N, width). `SwitchMlp` goes into any layer of
    nn/transformer.py; FAMILIES reads google/switch-base-8 and its kin (`nn.pretrained.find`); `experts.spread` lays
    the experts over processes.

Relations
    `text_transformer` with experts. With one expert it is the dense model, which `distil` teaches what the experts know.

Try
    papertrial fit switch --data python-source --task language_modeling --set experts=8 --out runs/sparse
    papertrial fit switch --data python-source --task language_modeling --set experts=1 --technique distil:teacher=runs/sparse

Cost
    tiny: seconds on a CPU. base: minutes on a CPU, half as long again as the dense model. paper: many accelerators.

Notation
    B rows, N tokens of a row, T tokens that are routed, C width, H hidden, E experts, K tokens that find room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.errors import Declined
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn import pretrained
from papertrial.nn.mlp import Mlp
from papertrial.nn.packing import Packed, Padded, Rows
from papertrial.nn.ranks import all_sum, world_size
from papertrial.nn.transformer import Decoder, Encoder, Layout
from papertrial.nn.trunks import dense_layout, tokeniser
from papertrial.papers.switch.distil import Distil
from papertrial.papers.switch.experts import Experts

PAPER = Paper(
    id="switch",
    title="Switch Transformers: Scaling to Trillion Parameter Models with Simple and Efficient Sparsity",
    kind="architecture",
    method="SwitchMlp",
    idea="Each token is sent to one of many perceptrons, so that a model grows while the work for a token does not.",
    authors="William Fedus, Barret Zoph, Noam Shazeer",
    year=2021,
    arxiv="2101.03961",
    month="2021-01",
    tasks=("text_classification", "sentence_similarity", "language_modeling"),
    techniques=("distil",),
    tags=("text", "language model", "mixture of experts", "sparsity"),
    baselines=("text_transformer", "ngram", "majority"),
    builds_on=("text_transformer",),
    official="https://github.com/tensorflow/mesh/blob/master/mesh_tensorflow/transformer/moe.py",
    licence="Apache-2.0",
    caveats=(
        "Capacity ties the rows of a batch together: where a token is dropped depends on the others. With the authors' "
        "factor of 2 answers depend on the batch they are asked in; the recipes base and tiny set eval_capacity=0, no limit.",
        "transformers counts an absolute capacity per row, starts its router without the factor 0.1, has 0.001 for alpha, and "
        "its jitter also changes what the experts see (transformers#33969).",
        "The gain over the dense model is claimed for text of many kinds only: on one kind there is little to divide up. At two "
        "layers and minutes of a CPU it also takes experts in both and room for twice the even share: with experts in one layer "
        "only, or a factor of 1.25, they were level with the dense model or behind it (seeds 0 and 10). That setup was chosen on "
        "seeds 10 to 12; the claims run the paper's and this one on seeds 0 to 2.",
        "Each process draws its own jitter, as it does dropout masks.",
    ),
)


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(
        128, "papertrial default, for minutes of a CPU; variant base-8 has 768", "[1, 65536], multiple of 2 heads"
    )
    depth: int = sourced(2, "papertrial default; base-8 has 12", "[1, 256]")
    heads: int = sourced(4, "papertrial default; base-8 has 12", "[1, 1024]")
    hidden: int = sourced(512, "papertrial default, four times the width as in base-8", "[1, 262144]")
    longest: int = sourced(
        512, "papertrial default; tokens of a row", "[2, 1000000]", auto=lambda facts: 128 if facts.causal else None
    )
    dropout: float = sourced(0.0, "papertrial default; sec. 2.4 has 0.1 in fine-tuning", "[0, 1)")
    tokeniser: str = sourced("bytes", "papertrial default", "bytes | bpe")
    vocabulary: int = sourced(4096, "papertrial default; ids of the tokeniser bpe", "[258, 1000000]")
    causal: bool = sourced(False, "the task", auto=lambda facts: facts.causal)
    experts: int = sourced(8, "papertrial default; the paper's Switch-Base has 128", "[1, 4096]")
    every: int = sourced(2, "sec. 2.3; every so many layers has experts", "[1, 1000]")
    capacity: float = sourced(1.25, "sec. 2.2 and authors' code; factor in training, 0 is no limit", "[0, 1000]")
    eval_capacity: float = sourced(2.0, "authors' code; factor in use, 0 is no limit", "[0, 1000]")
    balance: float = sourced(0.01, "sec. 2.2; alpha of the auxiliary loss", "[0, 1000]")
    jitter: float = sourced(
        0.01, "authors' code; the router's input is multiplied by 1 - jitter to 1 + jitter in training", "[0, 1)"
    )
    expert_dropout: float = sourced(0.0, "papertrial default; sec. 2.4 has 0.4 in fine-tuning", "[0, 1)")


#: places of an expert at least, authors' code
LEAST_ROOM = 4


def room(tokens: int, experts: int, factor: float) -> int:
    """Places of each expert for a batch of so many tokens (eq. 3); a factor of 0 is room for all."""
    return max(int(tokens * factor / experts), LEAST_ROOM) if factor else tokens


def balance(probabilities: Tensor, expert: Tensor) -> Tensor:
    """N sum_i f_i P_i (eq. 4), averaged over groups: probabilities (..., T, E), expert int64 (..., T), what each token wants.

    1 where the router is uniform. The gradient goes through P alone.
    """
    experts = probabilities.shape[-1]
    wanted = F.one_hot(expert, experts).to(probabilities.dtype).mean(-2)
    return experts * (wanted * probabilities.mean(-2)).sum(-1).mean()


def dispatch(
    expert: Tensor, experts: int, room: int, before: Tensor | None = None, group: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Who goes where: expert int64 (T,) -> (the tokens that find room, int64 (K,), expert by expert; how many each has, (E,)).

    Earlier tokens go first. before: int64 (E,), places of each expert that are taken already.  group: int64 (T,), ascending
    from 0; every group has a room of its own.
    """
    groups = 1 if group is None else int(group[-1]) + 1 if len(group) else 1
    queue, order = (expert if group is None else expert * groups + group).sort(stable=True)
    length = torch.bincount(queue, minlength=experts * groups)
    kept = length.clamp(max=room) if before is None else length.minimum((room - before).clamp(min=0))
    last = length.cumsum(0) - length + kept
    order = order[torch.arange(len(queue), device=queue.device) < last.index_select(0, queue)]
    return order, kept if group is None else kept.view(experts, groups).sum(1)


class SwitchMlp(nn.Module):
    """In the place of a perceptron: `forward(x, rows=None)`, x (..., width) laid out as `rows`, -> the same shape.

    capacity, eval_capacity: factors (see `room`).  balance: alpha.  jitter: on the router's input, in training.  dropout: on
    what it returns.  row_capacity: places of each expert for each row, instead of the factors (transformers counts so).
    In training the batch is that of all processes, in the order of their ranks.
    After a forward pass `aux` holds the auxiliary loss, and `figures` the numbers of `figures_of`.  `expert`: int64 (T,), what
    each token wanted, in the order of the rows.
    """

    sees_rows = True

    def __init__(
        self,
        width: int,
        hidden: int,
        experts: int,
        capacity: float = 1.25,
        eval_capacity: float = 2.0,
        balance: float = 0.01,
        jitter: float = 0.0,
        dropout: float = 0.0,
        expert_dropout: float = 0.0,
        activation: nn.Module | None = None,
        row_capacity: int | None = None,
    ) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = Experts(width, hidden, experts, expert_dropout, activation)
        self.dropout = nn.Dropout(dropout)
        self.count, self.capacity, self.eval_capacity = experts, capacity, eval_capacity
        self.balance, self.jitter, self.row_capacity = balance, jitter, row_capacity
        self.aux: dict[str, Tensor] = {}
        self.figures: dict[str, Tensor] = {}
        self.expert = torch.empty(0, dtype=torch.int64)
        self.start()

    def start(self, scale: float = 0.1) -> None:
        """Weights from a normal of variance scale / inputs, cut at two standard deviations (sec. 2.4)."""
        for weight in (self.router.weight, self.experts.up, self.experts.down):
            std = (scale / weight.shape[-1]) ** 0.5
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)

    @torch.compiler.disable  # how many tokens find room depends on values, which no traced program can have in its shapes
    def forward(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        if torch.compiler.is_exporting():
            return self._exported(x, rows)
        flat = x.flatten(0, -2)
        at = _places(rows)
        probabilities = self.probabilities(flat)
        if at is not None:
            probabilities = probabilities.index_select(0, at)
        gate, expert = probabilities.max(-1)
        wanted, before, total = self._demand(expert)
        if self.row_capacity is None:
            places = room(total, self.count, self.capacity if self.training else self.eval_capacity)
            order, counts = dispatch(expert, self.count, places, before)
        else:
            order, counts = dispatch(expert, self.count, self.row_capacity, group=_rows_of(rows, x, at))
        self._keep(probabilities, expert, wanted, total, len(order))
        source = order if at is None else at.index_select(0, order)
        found = self.experts(flat.index_select(0, source), counts) * gate.index_select(0, order).to(x.dtype)[:, None]
        return self.dropout(torch.zeros_like(flat).index_copy_(0, source, found.to(flat.dtype)).view_as(x))

    def _exported(self, x: Tensor, rows: Rows | None) -> Tensor:
        """The same answers in shapes that follow from that of x alone: every expert has the places it may have at most.

        Raises Declined for a room that is counted by row.
        """
        if self.row_capacity is not None:
            raise Declined("experts whose room is counted by row cannot be exported")
        flat = x.flatten(0, -2)
        held = torch.ones_like(flat[:, 0], dtype=torch.bool) if rows is None else rows.valid.flatten()
        gate, expert = self.probabilities(flat).max(-1)
        wanted = F.one_hot(expert, self.count) * held[:, None]
        rank, places, each = wanted.cumsum(0), held.sum(), flat.shape[0]  # `len` would fix the number
        if self.eval_capacity:
            places = (places.double() * self.eval_capacity / self.count).floor().clamp(min=LEAST_ROOM)
            share = Fraction(self.eval_capacity / self.count).limit_denominator(1000)
            each = each * share.numerator // share.denominator + each // 1000 + LEAST_ROOM + 1
        own = rank.gather(1, expert[:, None])[:, 0]
        kept = held & (own <= places)
        slot = torch.where(kept, expert * each + own - 1, self.count * each)
        filled = flat.new_zeros(self.count * each + 1, flat.shape[1]).index_copy(0, slot, flat)
        hidden = self.experts.activation(torch.bmm(filled[:-1].unflatten(0, (self.count, each)), self.experts.up.mT))
        found = F.pad(torch.bmm(hidden, self.experts.down.mT).flatten(0, 1), (0, 0, 0, 1))
        return (found.index_select(0, slot) * (gate * kept).to(x.dtype)[:, None]).view_as(x)

    def probabilities(self, x: Tensor) -> Tensor:
        """(T, C) -> (T, E), at least in float32 also where autocast would take less."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            if self.training and self.jitter:
                x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
            return F.linear(x, self.router.weight.to(x.dtype)).softmax(-1)

    def _demand(self, expert: Tensor) -> tuple[Tensor, Tensor | None, int]:
        """(how many tokens want each expert, how many of them stand on ranks before this one, all tokens)."""
        wanted = torch.bincount(expert, minlength=self.count)
        if world_size() == 1 or not self.training:
            return wanted, None, len(expert)
        every = [torch.empty_like(wanted) for _ in range(world_size())]
        dist.all_gather(every, wanted)
        stacked = torch.stack(every)
        return stacked.sum(0), stacked[: dist.get_rank()].sum(0), int(stacked.sum())

    def _keep(self, probabilities: Tensor, expert: Tensor, wanted: Tensor, total: int, kept: int) -> None:
        chosen = all_sum(probabilities.sum(0)) if self.training else probabilities.sum(0)
        load = wanted.to(chosen.dtype) / max(total, 1)
        self.aux = {"balance_loss": (load * chosen).sum() * (self.balance * self.count / max(total, 1))}
        with torch.no_grad():
            least, most = load.aminmax()
            flat = probabilities.flatten()  # as one product: a third of the time of torch.special.entr
            entropy = -flat.dot(flat.clamp_min(torch.finfo(flat.dtype).tiny).log()) / len(expert)
            dropped = load.new_tensor(1 - kept / max(len(expert), 1))
            self.figures = {"load_most": most, "load_least": least, "dropped": dropped, "router_entropy": entropy}
            self.expert = expert


def _places(rows: Rows | None) -> Tensor | None:
    """The places of tokens in x flattened, row after row; None where every place holds one."""
    if isinstance(rows, Packed):  # longest row first: who comes first must not depend on how a batch is laid out
        return rows.place.argsort()
    if isinstance(rows, Padded) and rows.valid is not None:
        return rows.valid.flatten().nonzero()[:, 0]
    return None


def _rows_of(rows: Rows | None, x: Tensor, at: Tensor | None) -> Tensor:
    """The row that each token stands in, int64 (T,), ascending."""
    if isinstance(rows, Packed):
        return rows.place[at] // rows.longest
    longest = x.shape[-2]
    return (torch.arange(x.shape[:-1].numel(), device=x.device) if at is None else at) // longest


def figures_of(model: nn.Module) -> dict[str, Tensor]:
    """Of the last forward pass, averaged over layers: the largest and smallest share of the tokens that one expert was
    wanted by, the share that found no room, and the entropy of the router in nats."""
    found = [module.figures for module in model.modules() if isinstance(module, SwitchMlp) and module.figures]
    return {name: torch.stack([each[name] for each in found]).mean() for name in (found[0] if found else ())}


def layout(config: Config) -> Layout:
    """The layers of `text_transformer` with ReLU, and with experts in every so many."""

    def mlp(layer: int) -> nn.Module:
        if (layer + 1) % config.every:
            return Mlp(
                config.width, config.hidden, config.dropout, activation=nn.ReLU(), bias=False, hidden_dropout=0.0
            )
        return SwitchMlp(
            config.width, config.hidden, config.experts, config.capacity, config.eval_capacity, config.balance,
            config.jitter, config.dropout, config.expert_dropout,
        )  # fmt: skip

    return replace(dense_layout(config), mlp=mlp)


class SwitchTransformer(Encoder):
    """The backbone: ids (B, N) int64 -> (B, width), the mean over tokens that see each other."""

    # DIFF: the authors' trunk is an encoder-decoder, T5; ours is the encoder or the decoder that it is compared with here.
    # Their trunk also starts at a tenth of the variance; ours starts as that of `text_transformer`, its experts as theirs.

    def __init__(self, config: Config) -> None:
        super().__init__(tokeniser(config.tokeniser, config.vocabulary), layout(config))
        self.longest = config.longest
        _start(self)

    def figures(self) -> dict[str, Tensor]:
        return figures_of(self)


class CausalSwitch(Decoder):
    """The same with tokens that see those before them: a language model; (B, width) is the last token."""

    def __init__(self, config: Config) -> None:
        super().__init__(tokeniser(config.tokeniser, config.vocabulary), layout(config))
        self.longest = config.longest
        _start(self)

    def figures(self) -> dict[str, Tensor]:
        return figures_of(self)


def _start(model: nn.Module) -> None:
    """Again, after the trunk has started all linear maps in its own way."""
    for module in model.modules():
        if isinstance(module, SwitchMlp):
            module.start()


def from_settings(settings: Mapping[str, Any], tokeniser: nn.Module) -> nn.Module:
    """A fresh model of the settings of a checkpoint of transformers (`SwitchTransformersForConditionalGeneration`)."""

    def mlps(side: str, layers: int) -> Any:
        sparse = settings.get(f"num_sparse_{side}_layers", 3)
        step = settings.get(f"{side}_sparse_step", layers // sparse if sparse else layers)
        dropout = settings.get("dropout_rate", 0.1)

        def mlp(layer: int) -> nn.Module:
            if step != 1 and layer % step != 1:
                return pretrained.t5_mlp(settings)
            return SwitchMlp(
                settings["d_model"], settings["d_ff"], settings["num_experts"], dropout=dropout, expert_dropout=dropout,
                balance=settings.get("router_aux_loss_coef", 0.001), jitter=settings.get("router_jitter_noise", 0.01),
                activation=pretrained.activation(settings.get("dense_act_fn", "relu")),
                row_capacity=settings["expert_capacity"],
            )  # fmt: skip

        return mlp

    layers = settings["num_layers"]
    decoder = settings.get("num_decoder_layers") or layers
    return pretrained.t5(settings, tokeniser, mlps("encoder", layers), mlps("decoder", decoder))


#: for `nn.pretrained.find(source, families=FAMILIES)`
FAMILIES = {"switch_transformers": replace(pretrained.T5, make=from_settings, rules=pretrained.switch_rules)}


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> SwitchTransformer | CausalSwitch:
    return CausalSwitch(config) if config.causal else SwitchTransformer(config)


#: `--technique distil:teacher=RUN`
techniques = {"distil": Distil}


def _size(experts: int) -> dict[str, int]:
    return {"width": 768, "depth": 12, "heads": 12, "hidden": 3072, "longest": 512, "experts": experts}


#: layers as in the config.json of google/switch-base-8 and its kin
variants = {"base-8": _size(8), "base-64": _size(64), "base-128": _size(128)}

_OPTIM = {"lr": 3e-3, "weight_decay": 0.1, "batch": 8, "warmup": 0.1, "beta2": 0.95}

recipes = {
    # DIFF: the paper trains with Adafactor on C4 and masked spans; AdamW and the next token stand in
    "paper": Recipe(
        "paper",
        config={**_size(128), "dropout": 0.1, "expert_dropout": 0.1, "tokeniser": "bpe", "vocabulary": 32_000},
        optim={"lr": 1e-2, "batch": 2048, "warmup": 0.02},
        budget=Budget(steps=100_000),
        source="sec. 2.3: Switch-Base, 2^20 tokens a step",
        cost="32 TPU cores",
        expect="the quality of T5-Base in a seventh of the steps (fig. 5)",
    ),
    "base": Recipe(
        "base", config={"eval_capacity": 0.0}, optim=_OPTIM, source="as text_transformer", cost="minutes on a CPU"
    ),
    "tiny": Recipe(
        "tiny",
        config={
            "width": 32, "depth": 2, "heads": 2, "hidden": 64, "longest": 64, "experts": 4, "eval_capacity": 0.0,
        },
        optim={"lr": 1e-2, "batch": 16},
        budget=Budget(steps=100),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}  # fmt: skip
