"""The second stage: text and codes as one row of tokens, written by a Transformer with sparse masks (sec. 2.2, appendix B.1).

A row is a start, T places of text, and n = h w codes of a picture in reading order. A query in the text sees what is before
it; a query in the picture sees all of the text, padding too, and of the picture what its layer's mask lets it see.

Notation: B rows, T places of text, n codes of a picture, h x w their grid, L = 1 + T + n, V codes, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.errors import PapertrialError
from papertrial.nn.attention import Attention, Remembered, View, Within
from papertrial.nn.cache import Cache
from papertrial.nn.decode import Choice
from papertrial.nn.packing import Padded
from papertrial.nn.position import Position
from papertrial.nn.ranks import all_sum, world_size
from papertrial.nn.tokenise import Bpe
from papertrial.nn.transformer import Stack, gpt2_layout, normal_
from papertrial.nn.views import Draw

PATTERNS = ("row", "column", "convolution", "dense")


def pattern(layer: int, depth: int) -> str:
    """The mask of layer `layer` (from 0) of `depth`: convolution in the last; else, counted from 1, column where
    (i - 2) mod 4 = 0 and row elsewhere (appendix B.1), that is row, column, row, row, row, column, ..."""
    if layer == depth - 1:
        return "convolution"
    return "column" if layer % 4 == 1 else "row"


def picture_mask(kind: str, height: int, width: int, kernel: int = 11) -> Tensor:
    """Which codes a code sees: bool (n, n), true where the query (first axis) sees the key. None sees one behind it.

    row: itself and the `width` codes before it in reading order, the last of which stands right above it.
    column: itself and those above it.  dense: all before it.  convolution: the codes within kernel // 2 rows above and
    kernel // 2 columns to either side, where columns go on from one row to the next (fig. 11 d).
    Raises ValueError for another kind, or an even kernel.
    """
    if kind not in PATTERNS or kernel % 2 == 0:
        raise ValueError(f"no mask {kind!r} with a kernel of {kernel}")
    at = torch.arange(height * width)
    back = at[:, None] - at
    if kind == "row":
        return (back >= 0) & (back <= width)
    if kind == "column":
        return (back >= 0) & (back % width == 0)
    if kind == "dense":
        return back >= 0
    half = kernel // 2
    rows, columns = torch.arange(half + 1), torch.arange(-half, half + 1)
    reached = (rows[:, None] * width + columns).flatten()
    return (back >= 0) & torch.isin(back, reached)


def mask(kind: str, text: int, height: int, width: int, kernel: int = 11) -> Tensor:
    """bool (L, L) of the whole row, whose first `text` places (the start among them) come before the picture."""
    sees = torch.ones(text + height * width, text + height * width, dtype=torch.bool).tril()
    sees[text:, text:] = picture_mask(kind, height, width, kernel)
    return sees


class SparseAttention(Attention):
    """Attention whose query at place i sees the keys that row i of `sees` (bool (L, L)) names.

    It is masked, not skipped: at a thousand tokens a masked product costs what a dense one does, and no more.
    """

    def __init__(self, width: int, heads: int, sees: Tensor, dropout: float = 0.0) -> None:
        super().__init__(width, heads, dropout)
        self.register_buffer("sees", sees, persistent=False)

    def forward(
        self, query: Tensor, context: Tensor | tuple[Tensor, Tensor] | None = None, view: View | None = None
    ) -> Tensor:
        remembered = view if isinstance(view, Remembered) else None
        last = remembered.used if remembered else query.shape[1]
        sees = self.sees[last - query.shape[1] : last, :last]
        return super().forward(query, context, replace(remembered, bias=sees) if remembered else Within(sees))


class Prior(nn.Module):
    """The Transformer. `loss({"ids": (B, T) text, "codes": (B, n)})` gives the weighted loss and its two parts.

    tokeniser: has `size` and `pad`; places of ids that hold `pad` get a vector of their own per place, which is what the
    paper has for a text that is shorter than T.  grid: h and w.  text_weight: of the text in the loss, the rest is the
    picture's.  sparse: the paper's masks; else every layer is dense.  bpe_dropout: of the tokeniser's merges, in `views`.
    Raises PapertrialError for one outside 0 to 1.
    """

    def __init__(
        self,
        tokeniser: nn.Module,
        text: int,
        grid: tuple[int, int],
        codes: int,
        width: int,
        depth: int,
        heads: int,
        kernel: int = 11,
        dropout: float = 0.0,
        text_weight: float = 1 / 8,
        sparse: bool = True,
        bpe_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= bpe_dropout <= 1:
            raise PapertrialError(f"bpe_dropout is {bpe_dropout}", "give a share from 0 to 1; the paper has 0.1")
        self.bpe_dropout = bpe_dropout if isinstance(tokeniser, Bpe) else 0.0
        self.tokeniser, self.text, self.grid, self.places = tokeniser, text, grid, grid[0] * grid[1]
        self.text_weight = text_weight
        kinds = {pattern(layer, depth) for layer in range(depth)} if sparse else {"dense"}
        masks = {kind: mask(kind, 1 + text, *grid, kernel) for kind in kinds}

        def attention(layer: int) -> nn.Module:
            return SparseAttention(width, heads, masks[pattern(layer, depth) if sparse else "dense"], dropout)

        layout = gpt2_layout(width, depth, heads, 4 * width, dropout=dropout)
        self.stack = Stack(replace(layout, attention=attention, position=Position), causal=True)
        # text: the tokeniser's ids, then one padding per place
        self.start = nn.Parameter(torch.empty(width))
        self.word, self.word_at = nn.Embedding(tokeniser.size + text, width), nn.Embedding(text, width)
        self.code = nn.Embedding(codes, width)
        self.row, self.column = nn.Embedding(grid[0], width), nn.Embedding(grid[1], width)
        # two vocabularies with a map each: no text is ever predicted in the place of a code, nor a code in the text's
        self.to_word, self.to_code = nn.Linear(width, tokeniser.size), nn.Linear(width, codes)
        normal_(self)
        nn.init.normal_(self.start, std=0.02)

    def logits(self, ids: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, T), codes (B, m) of the first m < n places -> logits of the text (B, T, words) and of codes 0 to m, (B, m + 1, V)."""
        x = torch.cat([self._read_text(ids), self._read_codes(codes, 0)], 1)
        x = self.stack(x, Padded(None, torch.arange(x.shape[1], device=x.device)))
        return self.to_word(x[:, : self.text]), self.to_code(x[:, self.text :])

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """The batch, its texts encoded anew with merges left out (sec. 2.2); what that makes too long is cut."""
        if not self.bpe_dropout:
            return dict(batch)
        ids, tokeniser = batch["ids"], self.tokeniser
        held = np.full(tuple(ids.shape), tokeniser.pad, dtype=np.int64)
        for place, (row, seed) in enumerate(zip(ids.cpu().numpy(), draw.integers(0, 2**62).tolist(), strict=True)):
            chance = np.random.Generator(np.random.Philox(key=seed))
            found = tokeniser.dropped(row[row != tokeniser.pad], self.bpe_dropout, chance)[: self.text]
            held[place, : len(found)] = found
        return {**batch, "ids": torch.from_numpy(held).to(ids)}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ids, codes = batch["ids"], batch["codes"]
        words, pictures = self.logits(ids, codes[:, :-1])
        held = ids != self.tokeniser.pad
        text = F.cross_entropy(words.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape) * held
        # normalised by the tokens of the global batch, of which each process has its own number
        count = all_sum(held.sum().to(text.dtype)) / world_size()
        text_nats = text.sum() / count.clamp_min(1 / world_size())
        image_nats = F.cross_entropy(pictures.flatten(0, 1), codes.flatten())
        return {
            "loss": self.text_weight * text_nats + (1 - self.text_weight) * image_nats,
            "nats_per_word": text_nats.detach(),
            "nats_per_code": image_nats.detach(),
        }

    def no_decay(self) -> set[str]:
        return {f"{name}.weight" for name in ("word", "word_at", "code", "row", "column")}

    @torch.no_grad()
    def write(
        self,
        ids: Tensor,
        seeds: Sequence[int],
        choice: Choice | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Codes int64 (B, n) of a picture for each text, ids (B, T): row i is drawn with seeds[i], whatever stands beside it."""
        choice = choice or Choice()
        chance = [np.random.Generator(np.random.Philox(key=seed % 2**64)).random(self.places) for seed in seeds]
        at = torch.from_numpy(np.stack(chance))
        attention, weight = self.stack.blocks[0].attention, self.start
        cache = Cache(
            len(self.stack.blocks), len(ids), 1 + self.text + self.places, attention.heads, attention.head_width,
            weight.dtype, weight.device,
        )  # fmt: skip
        logits = self.next(self._read_text(ids), cache)
        found = []
        for place in range(self.places):
            code = choice.take(logits.cpu().double(), at[:, place]).to(weight.device)
            found.append(code)
            if progress is not None:
                progress((place + 1) / self.places)
            if place + 1 < self.places:
                logits = self.next(self._read_codes(code[:, None], place), cache)
        return torch.stack(found, 1)

    def next(self, x: Tensor, cache: Cache) -> Tensor:
        """Read more of the row, embedded as x (B, m, C): logits (B, V) of the code that follows."""
        at = torch.arange(cache.used, cache.used + x.shape[1], device=x.device)
        x = self.stack(x, Padded(None, at), cache=cache)
        cache.grow(None, len(at))
        return self.to_code(x[:, -1])

    def _read_text(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, 1 + T, C), the start before them."""
        at = torch.arange(self.text, device=ids.device)
        words = torch.where(ids == self.tokeniser.pad, self.tokeniser.size + at, ids)
        x = self.word(words) + self.word_at(at)
        return torch.cat([self.start.expand(len(ids), 1, -1).to(x.dtype), x], 1)

    def _read_codes(self, codes: Tensor, first: int) -> Tensor:
        """codes (B, m) from place `first` on -> (B, m, C)."""
        at = first + torch.arange(codes.shape[1], device=codes.device)
        return self.code(codes) + self.row(at // self.grid[1]) + self.column(at % self.grid[1])
