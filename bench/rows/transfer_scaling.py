"""The models of the grid against GPT-2 of transformers: a training step on rows of bytes without padding.

Once with the layers of GPT-2 and its weights, and once `text_transformer` of the same size as it is trained: with rotary
positions, which GPT-2 does not have, so that answers differ.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from bench.harness import Case, Race, Side, training
from papertrial.baselines import text_transformer
from papertrial.nn import pretrained
from papertrial.nn.transformer import Ids

ROWS, PLACES, DEPTH = 8, 128, 4


class OurLoss(nn.Module):
    """Nats of each token given those before it, on average."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.losses(ids)[:, 1:].mean()


class TheirLoss(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, labels=ids).loss


def gpt2(width: int, vocabulary: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_positions=PLACES, n_embd=width, n_layer=DEPTH, n_head=width // 32, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        )
    )  # fmt: skip


def same_layers(width: int, vocabulary: int, theirs: nn.Module) -> nn.Module:
    settings = theirs.config.to_dict()
    ours = pretrained.build(settings, Ids(vocabulary, pad=None))
    pretrained.fill(ours, theirs.state_dict(), settings)
    return ours


def as_trained(width: int, vocabulary: int, theirs: nn.Module) -> nn.Module:
    size = text_transformer.Config(
        width=width, depth=DEPTH, heads=width // 32, hidden=4 * width, longest=PLACES, causal=True
    )
    return text_transformer.CausalTransformer(size)


def step(make: Callable[[int, int, nn.Module], nn.Module]) -> Callable[[Case], tuple[Side, Side]]:
    def build(case: Case) -> tuple[Side, Side]:
        vocabulary = 260
        theirs = gpt2(case.size, vocabulary)
        ours = make(case.size, vocabulary, theirs)
        ids = case.randint(250, ROWS, PLACES, low=4)
        return (
            training(case, case.place(OurLoss(ours)), ids, loss=lambda out: out),
            training(case, case.place(TheirLoss(theirs)), ids, loss=lambda out: out),
        )

    return build


_WIDTHS = {f"{ROWS} x {PLACES} bytes, width {width}": width for width in (64, 128, 256, 384)}
#: shares of our step at width 128, by torch's profiler
_BOUND = "products of matrices are 57 % of ours, attention 17 % and GELU 11 %, all of which both make"

RACES = [
    Race("training step, GPT-2", "transformers", step(same_layers), _WIDTHS, bound=_BOUND),
    Race(
        "training step, text_transformer",
        "transformers",
        step(as_trained),
        _WIDTHS,
        bound=_BOUND,
        differs="rotary positions and no biases, where GPT-2 has learned ones and biases",
    ),
]
