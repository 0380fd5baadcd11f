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
    nn/transformer.py; FAMILIES reads google/switch-base-8 and its kin (`nn.pretrained.find`); `spread` lays the experts
    over processes.

Relations
    `text_transformer` with experts. With one expert it is the dense model.

Try
    papertrial fit switch --data python-source --task language_modeling --set experts=8

Cost
    tiny: seconds on a CPU. base: minutes on a CPU, half as long again as the dense model. paper: many accelerators.

Notation
    B rows, N tokens of a row, T tokens that are routed, C width, H hidden, E experts, K tokens that find room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as exchange
from torch.nn import functional as F

from papertrial.baselines import text_transformer
from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, sourced
from papertrial.nn import pretrained
from papertrial.nn.mlp import Mlp
from papertrial.nn.packing import Packed, Padded, Rows
from papertrial.nn.ranks import all_sum, world_size
from papertrial.nn.transformer import Decoder, Encoder, Layout

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
    tasks=("language_modeling", "text_classification", "sentence_similarity"),
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
        "The gain over the dense model is on text of many kinds; on one kind of text and at this size it shrinks with longer "
        "training until nothing is left.",
        "Each process draws its own jitter, as it does dropout masks.",
    ),
)


@dataclass(frozen=True)
class Config:
    width: int = sourced(128, "papertrial default, for minutes of a CPU; variant base-8 has 768")
    depth: int = sourced(4, "papertrial default; base-8 has 12")
    heads: int = sourced(4, "papertrial default; base-8 has 12")
    hidden: int = sourced(512, "papertrial default, four times the width as in base-8")
    longest: int = sourced(256, "papertrial default; tokens of a row")
    dropout: float = sourced(0.0, "papertrial default; sec. 2.4 has 0.1 in fine-tuning")
    tokeniser: str = sourced("bytes", "papertrial default; bytes or bpe")
    vocabulary: int = sourced(4096, "papertrial default; ids of the tokeniser bpe")
    causal: bool = sourced(False, "the task", auto=lambda facts: facts.causal)
    experts: int = sourced(8, "papertrial default; the paper's Switch-Base has 128")
    every: int = sourced(2, "sec. 2.3; every so many layers has experts")
    capacity: float = sourced(1.25, "sec. 2.2 and authors' code; factor in training, 0 is no limit")
    eval_capacity: float = sourced(2.0, "authors' code; factor in use, 0 is no limit")
    balance: float = sourced(0.01, "sec. 2.2; alpha of the auxiliary loss")
    jitter: float = sourced(0.01, "authors' code; the router's input is multiplied by 1 - jitter to 1 + jitter in training")
    expert_dropout: float = sourced(0.0, "papertrial default; sec. 2.4 has 0.4 in fine-tuning")


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


def dispatch(expert: Tensor, experts: int, room: int, before: Tensor | None = None, group: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Who goes where: expert int64 (T,) -> (the tokens that find room, int64 (K,), expert by expert; how many each has, (E,)).

    Earlier tokens go first. before: int64 (E,), places of each expert that are taken already.  group: int64 (T,), ascending
    from 0; every group has a room of its own.
    """
    groups = 1 if group is None else int(group[-1]) + 1 if len(group) else 1
    queue = expert if group is None else expert * groups + group
    order = queue.argsort(stable=True)
    length = torch.bincount(queue, minlength=experts * groups)
    place = torch.arange(len(queue), device=queue.device) - (length.cumsum(0) - length)[queue[order]]
    if before is not None:
        place = place + before[expert[order]]
    order = order[place < room]
    return order, torch.bincount(expert[order], minlength=experts)


def grouped(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Each row times the matrix of its expert: x (K, in), rows of expert 0 first; weight (E, out, in); counts (E,) -> (K, out)."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    aligned = all(size * x.element_size() % 16 == 0 for size in weight.shape[1:])
    if aligned and len(x) and x.dtype != torch.float64:
        return F.grouped_mm(x, weight.mT, offs=counts.cumsum(0).int())
    # in slots, as many for each expert as the fullest one has, where the kernel does not take the type or the width
    slots = int(counts.max())
    at = torch.arange(len(x), device=x.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    at = at + slots * torch.arange(len(counts), device=x.device).repeat_interleave(counts)
    filled = x.new_zeros(len(counts) * slots, x.shape[1]).index_copy(0, at, x).unflatten(0, (len(counts), slots))
    return torch.bmm(filled, weight.mT).flatten(0, 1).index_select(0, at)


class Experts(nn.Module):
    """E perceptrons without biases: x (K, width), expert by expert, and counts (E,) -> (K, width).

    dropout: on hidden units.  Where `spread` has laid them over processes, each holds E / processes of them, and all have
    to call it together.
    """

    def __init__(self, width: int, hidden: int, experts: int, dropout: float = 0.0, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(experts, hidden, width))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))
        self.activation, self.dropout = activation or nn.ReLU(), nn.Dropout(dropout)
        self.processes = 1

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return self._own(x, counts) if self.processes == 1 else self._away(x, counts)

    def _own(self, x: Tensor, counts: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(grouped(x, self.up, counts)))
        return grouped(hidden, self.down, counts).to(x.dtype)

    def _away(self, x: Tensor, counts: Tensor) -> Tensor:
        """Send the tokens where their experts are, and take the answers back."""
        arriving = torch.empty_like(counts)
        dist.all_to_all_single(arriving, counts)
        out, back = (part.view(self.processes, -1) for part in (counts, arriving))
        sent, received = out.sum(1).tolist(), back.sum(1).tolist()
        there = exchange.all_to_all_single(x.new_empty(sum(received), x.shape[1]), x.contiguous(), received, sent)
        expert = torch.arange(back.shape[1], device=x.device).repeat(self.processes).repeat_interleave(back.flatten())
        order = expert.argsort(stable=True)
        done = self._own(there.index_select(0, order), back.sum(0))
        done = torch.zeros_like(done).index_copy(0, order, done)
        return exchange.all_to_all_single(torch.empty_like(x), done, sent, received)


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
        flat = x.flatten(0, -2)
        at, row = _places(rows, x)
        probabilities = self.probabilities(flat)
        if at is not None:
            probabilities = probabilities.index_select(0, at)
        gate, expert = probabilities.max(-1)
        wanted, before, total = self._demand(expert)
        if self.row_capacity is None:
            places = room(total, self.count, self.capacity if self.training else self.eval_capacity)
            order, counts = dispatch(expert, self.count, places, before)
        else:
            order, counts = dispatch(expert, self.count, self.row_capacity, group=row)
        self._keep(probabilities, expert, wanted, total, len(order))
        source = order if at is None else at.index_select(0, order)
        found = self.experts(flat.index_select(0, source), counts) * gate.index_select(0, order).to(x.dtype)[:, None]
        return self.dropout(torch.zeros_like(flat).index_copy(0, source, found.to(flat.dtype)).view_as(x))

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
        mean = probabilities.sum(0)
        mean = (all_sum(mean) if self.training else mean) / max(total, 1)
        load = wanted / max(total, 1)
        self.aux = {"balance_loss": self.balance * self.count * (load * mean).sum()}
        with torch.no_grad():
            entropy = torch.special.entr(probabilities).sum(-1).mean()
            dropped = 1 - torch.tensor(kept / max(len(expert), 1), device=mean.device)
            self.figures = {
                "load_most": load.max(), "load_least": load.min(), "dropped": dropped, "router_entropy": entropy,
            }  # fmt: skip
            self.expert = expert


def _places(rows: Rows | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """(the places of tokens in x flattened, row after row; the row of each), None where every place holds one."""
    if isinstance(rows, Packed):  # longest row first: who comes first must not depend on how a batch is laid out
        at = rows.place.argsort()
        return at, rows.place[at] // rows.longest
    count, longest = (1, len(x)) if x.ndim == 2 else (x.shape[:-1].numel() // x.shape[-2], x.shape[-2])
    row = torch.arange(count, device=x.device).repeat_interleave(longest)
    if isinstance(rows, Padded) and rows.valid is not None:
        at = rows.valid.flatten().nonzero()[:, 0]
        return at, row[at]
    return None, row


def figures_of(model: nn.Module) -> dict[str, Tensor]:
    """Of the last forward pass, averaged over layers: the largest and smallest share of the tokens that one expert was
    wanted by, the share that found no room, and the entropy of the router in nats."""
    found = [module.figures for module in model.modules() if isinstance(module, SwitchMlp) and module.figures]
    return {name: torch.stack([each[name] for each in found]).mean() for name in (found[0] if found else ())}


def spread(model: nn.Module) -> None:
    """Lay the experts of each `SwitchMlp` over all processes, in place: expert e on process e * processes // E.

    From then on all processes must call the model together, also to use it. Gradients of experts are those of the mean loss
    over processes without any exchange, so they must not be averaged again. Raises ValueError when the processes do not
    divide the experts.
    """
    world = world_size()
    for module in model.modules():
        if not isinstance(module, Experts) or world == 1:
            continue
        if len(module.up) % world:
            raise ValueError(f"{world} processes do not divide {len(module.up)} experts")
        module.processes = world
        for name in ("up", "down"):
            own = nn.Parameter(getattr(module, name).detach().chunk(world)[dist.get_rank()].clone())
            own.register_hook(lambda gradient: gradient / world)  # it has come from the losses of all processes, summed
            setattr(module, name, own)


def layout(config: Config) -> Layout:
    """The layers of `text_transformer` with ReLU, and with experts in every so many."""

    def mlp(layer: int) -> nn.Module:
        if (layer + 1) % config.every:
            return Mlp(config.width, config.hidden, config.dropout, activation=nn.ReLU(), bias=False, hidden_dropout=0.0)
        return SwitchMlp(
            config.width, config.hidden, config.experts, config.capacity, config.eval_capacity, config.balance,
            config.jitter, config.dropout, config.expert_dropout,
        )  # fmt: skip

    dense = text_transformer.Config(
        config.width, config.depth, config.heads, config.hidden, config.longest, config.dropout
    )
    return replace(text_transformer.layout(dense), mlp=mlp)


class SwitchTransformer(Encoder):
    """The backbone: ids (B, N) int64 -> (B, width), the mean over tokens that see each other."""

    # DIFF: the authors' trunk is an encoder-decoder, T5; ours is the encoder or the decoder that it is compared with here.
    # Their trunk also starts at a tenth of the variance; ours starts as that of `text_transformer`, its experts as theirs.

    def __init__(self, config: Config) -> None:
        super().__init__(text_transformer.tokeniser(config.tokeniser, config.vocabulary), layout(config))
        self.longest = config.longest
        _start(self)

    def figures(self) -> dict[str, Tensor]:
        return figures_of(self)


class CausalSwitch(Decoder):
    """The same with tokens that see those before them: a language model; (B, width) is the last token."""

    def __init__(self, config: Config) -> None:
        super().__init__(text_transformer.tokeniser(config.tokeniser, config.vocabulary), layout(config))
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


def _size(experts: int) -> dict[str, int]:
    return {"width": 768, "depth": 12, "heads": 12, "hidden": 3072, "longest": 512, "experts": experts}


#: layers as in the config.json of google/switch-base-8 and its kin
variants = {"base-8": _size(8), "base-64": _size(64), "base-128": _size(128)}

_OPTIM = {"lr": 3e-3, "weight_decay": 0.1, "batch": 32, "warmup": 0.1, "beta2": 0.95}

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
