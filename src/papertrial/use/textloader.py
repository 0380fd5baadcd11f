"""What an ejected model of text needs beside its source: a stand-in for the tokeniser within the model, and the text of
load.py, from texts to answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from papertrial.core.offers import offers
from papertrial.core.task import Split
from papertrial.nn.tokenise import Bpe, Bytes, Pretrained
from papertrial.tasks.sentence_similarity import SupervisedPairs
from papertrial.use import text_export

_SEGMENTS = '''

    def segments(self, ids: Tensor) -> Tensor:
        """Which of two texts an id (B, N) belongs to, 0 or 1."""
        ends = (ids == self.end).long()
        return ((ends.cumsum(1) - ends > 0) & (ids != self.pad)).long()'''


def stand_ins(tokeniser: Any) -> dict[tuple[str, str], str]:
    """Definitions in the place of the tokenisers: what the model itself asks of them."""
    held = f'''class {type(tokeniser).__name__}(nn.Module):
    """What the model knows of its tokeniser, which is in load.py."""

    size, pad, end = {tokeniser.size}, {tokeniser.pad}, {tokeniser.end}

    def __init__(self, *arguments: Any) -> None:
        super().__init__()''' + (_SEGMENTS if getattr(tokeniser, "segmented", False) else "")
    unused = 'class {}(nn.Module):\n    """Another tokeniser than that of this model."""'
    found = {}
    for kind in (Bytes, Bpe, Pretrained):
        mine = isinstance(tokeniser, kind)
        found[kind.__module__, kind.__name__] = held if mine else unused.format(kind.__name__)
    found[Bytes.__module__, "Tokeniser"] = "Tokeniser = nn.Module"
    return found


_HEAD = '''"""From texts to answers. Needs torch, safetensors{needs} and numpy; README.md says more."""

import json
from pathlib import Path

{imports}

HERE = Path(__file__).resolve().parent
CONFIG = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
MODEL = build_model()
MODEL.load_state_dict(load_file(HERE / "model.safetensors"))
MODEL.eval()
'''
_FEATURES = '''

@torch.no_grad()
def {name}(texts):
    """{gives} for a list of texts."""
    parts = []
    for begin in range(0, len(texts), 64):
        ids, mask = encode(texts[begin : begin + 64])
        parts.append(MODEL(torch.from_numpy(np.where(mask, ids, {pad}))).numpy())
    {last}
'''
_SOFTMAX = """logits = np.concatenate(parts).astype(np.float64)
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)"""
_PROBED = '''

def predict(texts):
    """Probabilities (B, classes) in the order of CONFIG["classes"] for a list of texts."""
    standardised = (embed(texts).astype(np.float64) - PROBE["mean"]) / PROBE["std"]
    logits = standardised @ PROBE["weight"].T.astype(np.float64) + PROBE["bias"]
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)
'''
_COSINE = '''

def predict(first, second):
    """How alike the texts of each pair are, float64 (B,): {what}."""
    sides = [embed(side).astype(np.float64) for side in (first, second)]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True).clip(1e-300) for side in sides]
    {last}
'''
_LANGUAGE = '''

@torch.no_grad()
def predict(texts):
    """Bits of each text, float64 (B,). What is longer than a row is read in rows that overlap by a half."""
    bits = []
    for text in texts:
        ids = tokens(text)
        begins = range(0, max(len(ids) - LONGEST, 0) + STEP, STEP)
        rows = [ids[begin : begin + LONGEST] for begin in begins if ids]
        total = 0.0
        if rows:
            filled = torch.tensor([row + [PAD] * (len(rows[0]) - len(row)) for row in rows])
            given = torch.cat([torch.full_like(filled[:, :1], START), filled[:, :-1]], 1)
            nats = torch.nn.functional.cross_entropy(MODEL.logits(given).mT, filled, reduction="none").double()
            for place, row in enumerate(rows):
                total += float(nats[place, LONGEST - STEP if place else 0 : len(row)].sum())
        bits.append(total / np.log(2))
    return np.array(bits)


@torch.no_grad()
def generate(prompt, longest=100):
    """The text that goes on from a prompt with the likeliest token, again and again."""
    ids = [START, *tokens(prompt)]
    told = len(ids)
    while len(ids) - told < longest:
        following = int(MODEL.logits(torch.tensor([ids[-LONGEST:]]))[0, -1].argmax())
        if following == END:
            break
        ids.append(following)
    return text_of(ids[told:])
'''
_BYTES = f"""
START, END, PAD, LONGEST = {{start}}, {{end}}, {{pad}}, {{longest}}
STEP = max(1, LONGEST // 2)


def tokens(text):
    return [byte + {Bytes.first} for byte in text.encode()]


def text_of(ids):
    return bytes(token - {Bytes.first} for token in ids if {Bytes.first} <= token < {Bytes.size}).decode(errors="ignore")
"""
_LEARNT = """START, END, PAD, LONGEST = {start}, {end}, {pad}, {longest}
STEP = max(1, LONGEST // 2)
TOKENISER = Tokenizer.from_file(str(HERE / "tokenizer.json"))
TOKENISER.encode_special_tokens = True  # what looks like a special token is text
TOKENISER.no_padding()
TOKENISER.no_truncation()


def tokens(text):
    return TOKENISER.encode(text, add_special_tokens=False).ids


def text_of(ids):
    return TOKENISER.decode(ids)
"""


def loader(artifact: Any, answers: str) -> str:
    """The text of load.py."""
    about = text_export.tokeniser_about(artifact)
    learnt = about["kind"] == "tokenizers"
    imports = ["import numpy as np", "import torch", "from model import build_model"]
    if artifact.head:
        imports.append("from safetensors.numpy import load_file as load_arrays")
    imports.append("from safetensors.torch import load_file")
    if learnt:
        imports.append("from tokenizers import Tokenizer")
    parts = [_HEAD.format(needs=", tokenizers" if learnt else "", imports="\n".join(imports))]
    if artifact.head:
        parts.append('PROBE = load_arrays(HERE / "probe.safetensors")  # a linear probe on the features\n')
    if answers == "logits":
        longest = offers(artifact.model.encoder).longest or about["longest"]
        template = (_LEARNT if learnt else _BYTES).removeprefix("\n")
        parts += [template.format(**{**about, "longest": longest}), _LANGUAGE]
        return "".join(parts)
    source = text_export.encoder_source(artifact, 'str(HERE / "tokenizer.json")')
    parts.append("\n".join([*([] if learnt else ["", ""]), *source, ""]))
    if answers == "probabilities" and not artifact.head:
        gives, name, last = 'Probabilities (B, classes) in the order of CONFIG["classes"]', "predict", _SOFTMAX
    else:
        gives, name, last = "Features float32 (B, width)", "embed", "return np.concatenate(parts)"
    parts.append(_FEATURES.format(name=name, gives=gives, pad=about["pad"], last=last))
    if artifact.head:
        parts.append(_PROBED)
    elif answers == "features":
        what, last = "the cosine of their features", "return (sides[0] * sides[1]).sum(1)"
        if isinstance(artifact.model, SupervisedPairs):
            low, high = float(artifact.model.low), float(artifact.model.high)
            what = f"that cosine on the scale of the scores, from {low:g} to {high:g}"
            last = f"return {low!r} + {high - low!r} * (sides[0] * sides[1]).sum(1)"
        parts.append(_COSINE.format(what=what, last=last))
    return "".join(parts)


def asked(artifact: Any, rows: Split, answers: str) -> tuple[list[list[str]], np.ndarray]:
    """What `predict` of load.py is called with, a list of texts per argument, and what the artifact answers."""
    task, model, texts = artifact.task, artifact.model, rows["text"]
    if answers == "probabilities":
        return [texts.texts()], text_export.expected(artifact, rows)
    if answers == "logits":
        each = [task.outputs(model, {}, Split({"text": texts[row : row + 1]})) for row in range(len(texts))]
        return [texts.texts()], np.concatenate(each)
    other = texts[np.arange(len(texts))[::-1]]
    if task.kind == "pairs":
        return [texts.texts(), other.texts()], task.outputs(model, {}, Split({"first": texts, "second": other}))
    first, second = (
        text_export.expected(artifact, Split({"text": side})).astype(np.float64) for side in (texts, other)
    )
    first, second = (side / np.linalg.norm(side, axis=1, keepdims=True).clip(1e-300) for side in (first, second))
    return [texts.texts(), other.texts()], (first * second).sum(1)


def example(artifact: Any, answers: str) -> str:
    """A line for the README that calls `predict`."""
    one = '["a text", "and another"]'
    return (
        f'predict({one}, ["a word", "and another text"])'
        if answers == "features" and not artifact.head
        else f"predict({one})"
    )
