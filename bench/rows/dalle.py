"""The nets of the discrete VAE against the authors' package, and writing codes against GPT-2 of transformers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.harness import Case, Race, Side, inference, training
from papertrial.nn.decode import GREEDY
from papertrial.nn.transformer import Ids
from papertrial.papers.dalle import dvae
from papertrial.papers.dalle.prior import Prior

HIDDEN, CODES = 64, 1024
WIDTH, DEPTH, HEADS, TEXT, WORDS = 256, 4, 8, 32, 512


def nets(part: str, how: Callable[..., Side]) -> Callable[[Case], tuple[Side, Side]]:
    def build(case: Case) -> tuple[Side, Side]:
        import dall_e

        side = case.size
        if part == "encoder":
            ours, theirs = dvae.Encoder(3, HIDDEN, CODES), dall_e.Encoder(n_hid=HIDDEN, vocab_size=CODES)
            x = case.randn(1, 3, side, side)
        else:
            ours, theirs = dvae.Decoder(3, HIDDEN, CODES), dall_e.Decoder(n_hid=HIDDEN, vocab_size=CODES)
            x = case.randn(1, CODES, side // 8, side // 8)
        for parameter in theirs.parameters():  # the authors freeze them
            parameter.requires_grad_()
        theirs.load_state_dict(ours.state_dict())
        return how(case, case.place(ours), x), how(case, case.place(theirs), x)

    return build


def writers(case: Case) -> tuple[Prior, nn.Module]:
    """A dense prior without vectors of places, and GPT-2 with its weights: codes are its first ids, the text the next."""
    from transformers import GPT2Config, GPT2LMHeadModel

    ours = Prior(Ids(WORDS), TEXT, (case.size, case.size), CODES, WIDTH, DEPTH, HEADS, sparse=False).eval()
    config = GPT2Config(
        vocab_size=CODES + WORDS + 1, n_positions=1 + TEXT + case.size**2, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config).eval()
    theirs.lm_head = nn.Linear(WIDTH, CODES, bias=False)
    with torch.no_grad():
        for table in (ours.word_at, ours.row, ours.column, theirs.transformer.wpe):
            table.weight.zero_()
        ours.code.weight.normal_()  # far apart, so that rounding chooses no other code
        ours.to_code.bias.zero_()
        theirs.transformer.wte.weight.copy_(torch.cat([ours.code.weight, ours.word.weight[:WORDS], ours.start[None]]))
        theirs.lm_head.weight.copy_(ours.to_code.weight)
        for mine, other in zip(ours.stack.blocks, theirs.transformer.h, strict=True):
            parts = (mine.attention.query, mine.attention.key, mine.attention.value)
            other.attn.c_attn.weight.copy_(torch.cat([part.weight for part in parts]).T)
            other.attn.c_attn.bias.copy_(torch.cat([part.bias for part in parts]))
            pairs = (
                (mine.attention.out, other.attn.c_proj),
                (mine.mlp.up, other.mlp.c_fc),
                (mine.mlp.down, other.mlp.c_proj),
            )
            for own, conv in pairs:
                conv.weight.copy_(own.weight.T)
                conv.bias.copy_(own.bias)
    return case.place(ours), case.place(theirs)


ROWS = 4


def writing(case: Case) -> tuple[Side, Side]:
    ours, theirs = writers(case)
    ids = case.randint(WORDS, ROWS, TEXT, low=1)  # 0 is padding
    prompt = torch.cat([torch.full((ROWS, 1), CODES + WORDS, device=case.device), CODES + ids], 1)
    codes = case.size**2

    @torch.no_grad()
    def generate() -> Tensor:
        mask = torch.ones_like(prompt)
        out = theirs.generate(prompt, attention_mask=mask, max_new_tokens=codes, do_sample=False, pad_token_id=0)
        return out[:, prompt.shape[1] :]

    return Side(lambda: ours.write(ids, [0] * ROWS, GREEDY)), Side(generate)


_SIDES = {f"1 x {side} x {side}": side for side in (16, 24, 32, 48)}

_SAME = "the same convolutions on both sides, which are nearly all of the time"

RACES = [
    *(
        Race(
            f"{part}, {what}",
            "DALL-E",
            nets(part, how),
            _SIDES,
            grows=lambda side: side**2,
            dtypes=("float32",),  # the peer refuses an image of any other
            typical="1 x 16 x 16",
            bound=_SAME,
        )
        for part in ("encoder", "decoder")
        for what, how in (("training step", training), ("inference", inference))
    ),
    Race(
        "writing codes, cached",
        "transformers",
        writing,
        {f"{ROWS} x {side**2} codes": side for side in (2, 3, 4, 5)},
        grows=lambda side: side**2,
        typical=f"{ROWS} x 16 codes",
        bound="each code reads all weights once, on both sides",
        dtypes=("float32",),
        compiled=False,
    ),
]
