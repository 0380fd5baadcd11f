"""Models of text on their way out: ids and masks in place of texts, and the tokeniser that has to go with them.

A program that is written out holds no tokeniser. It takes ids int64 (B, N) and a mask bool (B, N), true where a token
stands; what is false stands at the end of a row, whatever the id there.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core import registry
from papertrial.core.errors import Declined
from papertrial.core.offers import offers
from papertrial.core.task import Ragged, Split
from papertrial.nn.heads import NextToken, Supervised
from papertrial.nn.tokenise import Bpe, Bytes, Pretrained
from papertrial.nn.transformer import EncoderDecoder
from papertrial.tasks._texts import features_of, most_tokens, stacked
from papertrial.tasks.retrieval import lengths_of
from papertrial.tasks.sentence_similarity import SIDES

#: rows of a language model that a copy is tried on: each token of them has as many answers as there are ids
_LOGIT_ROWS = 8
_LETTERS = "abcdefghijklmnopqrstuvwxyz ,.' ABC 0123 éß字"


def is_text(artifact: Any) -> bool:
    """Whether the data of an artifact go through a tokeniser."""
    return registry.kind(artifact.task.kind).tokenised


class Logits(nn.Module):
    """What follows each token: ids (B, N) -> (B, N, V)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder: Any = encoder

    def forward(self, ids: Tensor) -> Tensor:
        return self.encoder.logits(ids)


class PairScore(nn.Module):
    """How well a document answers a query: query (B, N), document (B, M), first (B,) -> (B,).

    first: what the first stage gives the pair, for a reranker that takes it into account.
    """

    def __init__(self, reranker: Any) -> None:
        super().__init__()
        self.encoder, self.scorer, self.fusion = reranker.encoder, reranker.scorer, offers(reranker).fusion

    def forward(self, query: Tensor, document: Tensor, first: Tensor | None = None) -> Tensor:
        score = self.scorer(self.encoder, query, document)
        return score if self.fusion is None else score + self.fusion * first


def network_of(artifact: Any) -> tuple[nn.Module, str]:
    """The network from ids to answers, without a probe, and what it answers with.

    Raises Declined for a model that writes texts.
    """
    model = artifact.model
    if offers(model).score:
        if offers(model).scorer is None:
            raise Declined(f"how {artifact.card['method']['name']} scores a pair is not known here")
        return PairScore(model), "score"
    if isinstance(model, NextToken):
        return Logits(model.encoder), "logits"
    if isinstance(model, Supervised):
        return model, "probabilities"
    if isinstance(model.encoder, EncoderDecoder):
        raise Declined(
            f"{artifact.card['method']['name']} writes its answers token by token, which no single program from ids to"
            " answers does",
            f"type: papertrial generate {artifact.folder}",
        )
    return model.encoder, "probabilities" if artifact.head else "features"


def longest_of(artifact: Any) -> tuple[int, ...]:
    """Most tokens of a text, or of a query and of a document."""
    model = artifact.model
    return lengths_of(model) if offers(model).score else (most_tokens(model.encoder),)


def meanings(artifact: Any) -> list[dict[str, Any]]:
    """What goes in, as `predictor.input_meanings` says it. longest: most places of a row."""
    longest = longest_of(artifact)
    names = [("ids", "mask", "length")]
    if len(longest) > 1:
        names = [("query", "query_mask", "query_length"), ("document", "document_mask", "document_length")]
    start = f"{_start(artifact.model)}, then " if isinstance(artifact.model, NextToken) else ""
    entries: list[dict[str, Any]] = []
    for (ids, mask, length), most in zip(names, longest, strict=True):
        entries += [
            {"name": ids, "dtype": "int64", "shape": [length], "longest": most,
             "meaning": f"{start}the ids that the tokeniser makes of a text, at most {most}"},
            {"name": mask, "dtype": "bool", "shape": [length], "longest": most,
             "meaning": "true where a token stands, false behind the end of a shorter text"},
        ]  # fmt: skip
    if offers(artifact.model).fusion is not None:
        entries.append(
            {"name": "first", "dtype": "float32", "shape": [],
             "meaning": "what BM25 (k1 = 1.5, b = 0.75) gives the pair"}
        )  # fmt: skip
    return entries


def tensors(artifact: Any, rows: Split) -> tuple[Tensor, ...]:
    """Rows of texts as the program takes them."""
    longest = longest_of(artifact)
    texts = [rows[name] for name in (("text",) if len(longest) == 1 else ("query", "document"))]
    found: list[Tensor] = []
    for column, most in zip(texts, longest, strict=True):
        found += _padded(_ids(artifact.model, column, most))
    if offers(artifact.model).fusion is not None:
        found.append(torch.from_numpy(np.asarray(rows["first"], dtype=np.float32)))
    return tuple(found)


def _ids(model: Any, texts: Ragged, longest: int) -> Ragged:
    tokeniser = model.encoder.tokeniser
    if not isinstance(model, NextToken):
        return tokeniser.encode(texts, longest=longest)
    bare = tokeniser.encode(texts, longest=longest - 1, specials=False)
    return Ragged.of([np.append(_start(model), row) for row in bare], pad=tokeniser.pad)


def _start(model: NextToken) -> int:
    start: Any = model.start
    return int(start)


def _padded(ids: Ragged) -> list[Tensor]:
    held = np.arange(max(1, int(ids.lengths.max(initial=0)))) < ids.lengths[:, None]
    filled = np.full(held.shape, ids.pad, dtype=np.int64)
    filled[held] = ids.values[ids.offsets[0] : ids.offsets[-1]]
    return [torch.from_numpy(filled), torch.from_numpy(held)]


def expected(artifact: Any, rows: Split) -> np.ndarray:
    """What the artifact itself answers to rows of texts."""
    model, (network, answers) = artifact.model, network_of(artifact)
    if answers == "probabilities":
        return artifact.task.outputs(model, artifact.head, Split({"text": rows["text"]}))
    if answers == "features":
        return features_of(model, rows["text"])
    given = tensors(artifact, rows)
    with torch.no_grad():
        if answers == "score":
            return network(given[0], given[2], *given[4:]).numpy()
        return (network(given[0]) * given[1].unsqueeze(-1)).numpy()


def rows_to_try(artifact: Any, split: Split | None, count: int) -> Split:
    """`count` rows of texts, or fewer, longest first; made up where split is None.

    Longest first, as a task hands them to a model: experts with a limited room serve who comes first.
    """
    count = _LOGIT_ROWS if isinstance(artifact.model, NextToken) else count
    if offers(artifact.model).score:
        return _pairs_to_try(split, count)
    if split is None:
        texts = _made_up(count)
    elif "text" in split:
        texts = split["text"]
    else:
        texts = stacked([split[name] for name in SIDES if name in split])
    texts = texts[_spread(len(texts), count)]
    lengths = _ids(artifact.model, texts, longest_of(artifact)[0]).lengths
    return Split({"text": texts[np.argsort(-lengths, kind="stable")]})


def _pairs_to_try(split: Any, count: int) -> Split:
    if split is None:
        first = np.random.default_rng(1).gamma(2, 3, count)
        return Split({"query": _made_up(count), "document": _made_up(count, 2), "first": first.astype(np.float32)})
    query, place = np.nonzero(split["candidates"] >= 0)
    chosen = _spread(len(query), count)
    query, place = query[chosen], place[chosen]
    documents = split.documents["text"][split["candidates"][query, place]]
    return Split({"query": split["text"][query], "document": documents, "first": split["first"][query, place]})


def _spread(rows: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, rows - 1, count).astype(np.int64))


def _made_up(count: int, seed: int = 0) -> Ragged:
    """Letters at random, from a text without one to a long one."""
    rng = np.random.default_rng(seed)
    lengths = np.linspace(0, 400, count).astype(int)
    return Ragged.of_texts(["".join(rng.choice(list(_LETTERS), length)) for length in lengths])


# -- the tokeniser ----------------------------------------------------------------------------------------------------


def tokeniser_json(tokeniser: Any) -> str | None:
    """The tokeniser as a tokenizer.json of the `tokenizers` library, with the very ids of the model; None for bytes.

    Raises Declined for one that is none of papertrial's.
    """
    if isinstance(tokeniser, Bytes):
        return None
    if isinstance(tokeniser, Pretrained):
        return tokeniser._ready().to_str()
    if isinstance(tokeniser, Bpe):
        return _bpe_json(tokeniser)
    raise Declined(f"the tokeniser {type(tokeniser).__name__} is not papertrial's to write out")


def _bpe_json(tokeniser: Bpe) -> str:
    """Ids moved up by the specials, which join the vocabulary, and an end behind each text."""
    held = json.loads(tokeniser._ready().to_str())
    specials = {"<pad>": tokeniser.pad, "</s>": tokeniser.end}
    held["model"]["vocab"] = specials | {word: at + tokeniser.first for word, at in held["model"]["vocab"].items()}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    held["added_tokens"] = [{"id": at, "content": word, **flags} for word, at in specials.items()]
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    held["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, end, {"Sequence": {"id": "B", "type_id": 0}}, end],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [tokeniser.end], "tokens": ["</s>"]}},
    }
    held["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return json.dumps(held, ensure_ascii=False)


def tokeniser_about(artifact: Any) -> dict[str, Any]:
    """What a card says of the tokeniser. start: the id that stands before a text, of language models."""
    model, tokeniser = artifact.model, artifact.model.encoder.tokeniser
    plain = isinstance(tokeniser, Bytes)
    about = {"kind": "bytes" if plain else "tokenizers", "pad": tokeniser.pad, "end": tokeniser.end}
    about["longest"] = max(longest_of(artifact))
    if isinstance(model, NextToken):
        about["start"] = _start(model)
    return about


def encoder_source(artifact: Any, file: str) -> list[str]:
    """Lines of Python: `encode(texts, longest)` gives ids and mask as numpy arrays.

    file: Python for the path of tokenizer.json.
    """
    model, about = artifact.model, tokeniser_about(artifact)
    asks, start = isinstance(model, NextToken), about.get("start")
    pad, end = about["pad"], about["end"]
    if about["kind"] == "bytes":
        room, tail = ("longest - 1", "") if asks else ("longest - 1", f" + [{end}]")
        head = f"[{start}] + " if asks else ""
        ids = [
            f'cut = [text.encode()[: {room}].decode(errors="ignore").encode() for text in texts]',
            f"rows = [{head}[byte + {Bytes.first} for byte in raw]{tail} for raw in cut]",
        ]
        before: list[str] = []
    else:
        before = [
            f"TOKENISER = Tokenizer.from_file({file})",
            "TOKENISER.encode_special_tokens = True  # what looks like a special token is text",
            "TOKENISER.no_padding()",
            "",
            "",
        ]
        ids = [
            f"TOKENISER.enable_truncation(longest{' - 1' if asks else ''})",
            f"rows = [found.ids for found in TOKENISER.encode_batch(texts{', add_special_tokens=False' if asks else ''})]",
        ]
        if asks:
            ids.append(f"rows = [[{start}, *row] for row in rows]")
    return [
        *before,
        f"def encode(texts, longest={about['longest']}):",
        '    """ids int64 (B, N) and mask bool (B, N) of texts."""',
        *(f"    {line}" for line in ids),
        "    size = max(1, *map(len, rows)) if rows else 1",
        "    mask = np.arange(size) < np.array([len(row) for row in rows])[:, None]",
        f"    return np.array([row + [{pad}] * (size - len(row)) for row in rows], dtype=np.int64), mask",
    ]


def snippet(artifact: Any, to: str, path: Any) -> str:
    """A few lines of Python from texts to the answers of a file that was exported."""
    about = tokeniser_about(artifact)
    reads = ["import numpy as np", "import onnxruntime" if to == "onnx" else "import torch"]
    if about["kind"] == "tokenizers":
        reads.append("from tokenizers import Tokenizer")
    names = [entry["name"] for entry in meanings(artifact)]
    lengths = longest_of(artifact)
    if len(lengths) == 1:
        given = ['ids, mask = encode(["a text", "and a longer one"])']
    else:
        given = [
            f'query, query_mask = encode(["a query"] * 2, {lengths[0]})',
            f'document, document_mask = encode(["its document", "another document"], {lengths[1]})',
        ]
    if "first" in names:
        given.append('first = np.zeros(2, dtype="float32")  # what BM25 gives each pair, where there is one')
    if to == "onnx":
        called = ", ".join(f'"{name}": {name}' for name in names)
        given += [
            f'session = onnxruntime.InferenceSession("{path.name}")',
            f"print(session.run(None, {{{called}}})[0])",
        ]
    else:
        called = ", ".join(f"torch.from_numpy({name})" for name in names)
        given += [f'program = torch.export.load("{path.name}").module()', f"print(program({called}))"]
    file = json.dumps(f"{path.name}.tokenizer.json")
    return "\n".join([*reads, "", *encoder_source(artifact, file), "", "", *given, ""])
