"""Tokenisers: from texts to ids and back. Each is a module, so that what it has learnt lies with the weights of its model.

Nobody can type a special token: text that looks like one is encoded like any other text.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core.errors import DataError, PapertrialError, missing_extra
from papertrial.core.files import read_json
from papertrial.core.task import Ragged

Texts = Ragged | Sequence[str]
_AT_A_TIME = 1 << 20  # bytes of text handed to the `tokenizers` library in one call, whose answers take much memory
_STRETCH = 1 << 16  # characters; longer texts are encoded in pieces, several at once
_ROOMY = 16  # characters per id: a text is seldom so dense that more of them are needed to fill `longest` ids
_GAP = re.compile(r"(?<=\S)\s")  # no token goes from a word into the space after it


class Tokeniser(nn.Module):
    """What a model knows of a tokeniser.

    size: ids are below it, so a table needs that many rows.  pad: the id that fills short rows.  end: the id that ends a
    text, or None.  mask: the id that hides a token, and that no text has, or None.
    """

    size: int
    pad: int
    end: int | None
    mask: int | None = None

    def fit(self, texts: Texts) -> Tokeniser:
        """Learn from texts where there is something to learn; returns itself."""
        return self

    def encode(self, texts: Texts, longest: int | None = None, specials: bool = True) -> Ragged:
        """One row of int32 ids per text.

        texts: strings, or their UTF-8 bytes as Ragged uint8.  longest: ids of a row at most, specials among them.
        specials: whether to add what the model expects around a text, at least `end`; a prompt to go on from has none.
        Raises ValueError when the specials alone are longer than `longest`.
        """
        raise NotImplementedError

    def decode(self, ids: Any) -> str:
        """The text of a row of ids (a list, an array or a tensor), without specials. Bytes that are no UTF-8 are dropped."""
        return self._bytes(ids).decode("utf-8", "ignore")

    def stream(self) -> Callable[[int], str]:
        """A function that takes the ids of one text one by one and gives the characters that each of them completes."""
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        return lambda token: decoder.decode(self._bytes([token]))

    def _bytes(self, ids: Any) -> bytes:
        raise NotImplementedError


class Bytes(Tokeniser):
    """Every byte of UTF-8 is a token: ids 0 pad, 1 end, 2 unknown, then byte + 3, as in ByT5 (arXiv 2105.13626, sec. 3.1).

    Rows that are cut end with a whole character. Ids of 259 and more, which padded tables have, decode to nothing.
    """

    pad, end, unknown = 0, 1, 2
    mask = unknown
    first = 3
    size = first + 256

    def encode(self, texts: Texts, longest: int | None = None, specials: bool = True) -> Ragged:
        texts = _as_bytes(texts)
        lengths = texts.lengths if longest is None else _whole_characters(texts, _room(longest, int(specials)))
        return _finished(texts, lengths, self.first, self.end if specials else None, self.pad)

    def _bytes(self, ids: Any) -> bytes:
        ids = np.asarray(ids, dtype=np.int64)
        return (ids[(ids >= self.first) & (ids < self.size)] - self.first).astype(np.uint8).tobytes()


class _Learnt(Tokeniser):
    """A tokeniser of the `tokenizers` library. What it has learnt is JSON, kept in the state dict as uint8 (bytes,)."""

    def __init__(self) -> None:
        super().__init__()
        self._inner: Any = None

    def get_extra_state(self) -> Tensor:
        return torch.from_numpy(np.frombuffer(json.dumps(self._state()).encode(), dtype=np.uint8).copy())

    def set_extra_state(self, state: Tensor) -> None:
        self._restore(json.loads(state.cpu().numpy().tobytes()))

    def _state(self) -> dict[str, Any]:
        return {"tokeniser": self._inner and self._inner.to_str()}

    def _restore(self, state: dict[str, Any]) -> None:
        self._inner = state["tokeniser"] and _library().Tokenizer.from_str(state["tokeniser"])

    def _ready(self) -> Any:
        if self._inner is None:
            raise PapertrialError("the tokeniser has learnt nothing yet", "call fit with texts, or load its weights")
        return self._inner


class Bpe(_Learnt):
    """Byte-level byte-pair encoding, learnt from the texts of `fit`: ids 0 pad, 1 end, the 256 bytes, then merges.

    size: rows of the table; few texts may fill fewer. The same texts give the same merges. Words are split from each other
    as in GPT-2.  Raises ValueError for a size without room for the bytes, PapertrialError without the extra `text`.
    """

    pad, end, first = 0, 1, 2

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < self.first + 256:
            raise ValueError(f"{size} ids have no room for {self.first} specials and 256 bytes")
        self.size = size
        self._pieces: list[bytes] = []
        self._ranks: dict[tuple[str, str], int] = {}  # of merges, in the order they were learnt
        self._ids: dict[str, int] = {}

    def fit(self, texts: Texts) -> Bpe:
        library = _library()
        inner = library.Tokenizer(library.models.BPE())
        inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = library.trainers.BpeTrainer(
            vocab_size=self.size - self.first,
            min_frequency=2,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(_in_parts(_as_bytes(texts)), trainer)
        self._restore({"tokeniser": inner.to_str()})
        return self

    def encode(self, texts: Texts, longest: int | None = None, specials: bool = True) -> Ragged:
        room = None if longest is None else _room(longest, int(specials))
        found = [row for part in _in_parts(_as_bytes(texts)) for row in _beginnings(self._rows, part, room)]
        ragged = Ragged.of(found)
        lengths = ragged.lengths if room is None else np.minimum(ragged.lengths, room)
        return _finished(ragged, lengths, self.first, self.end if specials else None, self.pad)

    def _rows(self, texts: list[str]) -> list[np.ndarray]:
        pieces = [list(_stretches(text)) for text in texts]
        flat = [piece for row in pieces for piece in row]
        encoded = (
            np.asarray(found.ids, dtype=np.int32)
            for part in _parts(np.array([len(piece) for piece in flat]))
            for found in self._ready().encode_batch_fast(flat[part])
        )
        return [np.concatenate([next(encoded) for _ in row]) for row in pieces]

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        if self._inner is not None:
            byte_of = {letter: bytes([byte]) for byte, letter in enumerate(_letters())}
            self._ids = self._inner.get_vocab()
            words = sorted(self._ids.items(), key=lambda entry: entry[1])
            self._pieces = [b"".join(byte_of[letter] for letter in word) for word, _ in words]
            merges = json.loads(self._inner.to_str())["model"]["merges"]
            pairs = (tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges)
            self._ranks = {pair: rank for rank, pair in enumerate(pairs)}

    def dropped(self, ids: Any, p: float, chance: np.random.Generator) -> np.ndarray:
        """A row of ids without specials, encoded anew where each merge is left out with probability p: int32, of the same bytes.

        BPE-dropout (arXiv 1910.13267, algorithm 1): as long as any merge is left, the coins of all that are possible are
        tossed, and the first in the order of learning is made, the leftmost of several. Nothing is left out at 0; at 1 every
        byte is by itself.
        """
        whole = self._bytes(ids)
        text = whole.decode("utf-8", "ignore")
        found = [
            part
            for word, _ in self._ready().pre_tokenizer.pre_tokenize_str(text)
            for part in _merged(word, self._ranks, p, chance)
        ]
        if rest := whole[len(text.encode()) :]:  # of a character that was cut
            letters = _letters()
            found += [letters[byte] for byte in rest]
        return np.array([self._ids[part] + self.first for part in found], dtype=np.int32)

    def _bytes(self, ids: Any) -> bytes:
        places = (int(token) - self.first for token in ids)
        return b"".join(self._pieces[place] for place in places if 0 <= place < len(self._pieces))


def _merged(word: str, ranks: dict[tuple[str, str], int], p: float, chance: np.random.Generator) -> list[str]:
    parts = list(word)
    while len(parts) > 1:
        left = chance.random(len(parts) - 1) >= p
        found = [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if left[at] and pair in ranks]
        if not found:
            break
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


class Pretrained(_Learnt):
    """The tokeniser of a Hugging Face folder, from its tokenizer.json: the ids its model was trained with.

    folder: None makes one that waits for its state.  The padding and truncation of the file are not taken over; a file
    without a padding token pads with `end`.  segmented: whether its model tells the two texts of a pair apart by segments.
    Raises DataError for a folder without a tokenizer.json, or one that cannot be read; PapertrialError without the extra `text`.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        super().__init__()
        self.size, self.pad, self.end, self.segmented = 0, 0, None, False
        if folder is not None:
            self._restore(_read(Path(folder)))

    def encode(self, texts: Texts, longest: int | None = None, specials: bool = True) -> Ragged:
        inner = self._truncating(longest, pair=False, specials=specials)

        def rows(texts: list[str]) -> list[np.ndarray]:
            encoded = inner.encode_batch_fast(texts, add_special_tokens=specials)
            return [np.asarray(row.ids, dtype=np.int32) for row in encoded]

        parts = _in_parts(_as_bytes(texts))
        return Ragged.of([row for part in parts for row in _beginnings(rows, part, longest)], pad=self.pad)

    def encode_pairs(self, first: Texts, second: Texts, longest: int | None = None) -> Ragged:
        """Rows of two texts each with the separators between and behind them, for a model that reads both at once.

        The longer of the two gives way until both fit. Raises ValueError for columns of different length.
        """
        first, second = _as_bytes(first), _as_bytes(second)
        if len(first) != len(second):
            raise ValueError(f"{len(first)} first and {len(second)} second texts are no pairs")
        inner = self._truncating(longest, pair=True, specials=True)
        found = []
        for rows in _parts(first.lengths + second.lengths):
            encoded = inner.encode_batch_fast(list(zip(_strings(first, rows), _strings(second, rows), strict=True)))
            found += [np.asarray(row.ids, dtype=np.int32) for row in encoded]
        return Ragged.of(found, pad=self.pad)

    def segments(self, ids: Tensor) -> Tensor:
        """Which of two texts an id (B, N) belongs to, 0 or 1, as the model was told in training; 0 where it was not."""
        if not self.segmented or self.end is None:
            return torch.zeros_like(ids)
        ends = ids.eq(self.end).long()
        return ((ends.cumsum(1) - ends > 0) & (ids != self.pad)).long()

    def decode(self, ids: Any) -> str:
        return self._ready().decode([int(token) for token in ids], skip_special_tokens=True)

    def stream(self) -> Callable[[int], str]:
        decoder, inner = _library().decoders.DecodeStream(skip_special_tokens=True), self._ready()
        return lambda token: decoder.step(inner, int(token)) or ""

    def _truncating(self, longest: int | None, pair: bool, specials: bool) -> Any:
        inner = self._ready()
        inner.encode_special_tokens = True  # as text; the library does not keep this in its JSON
        inner.no_truncation()
        if longest is not None:
            _room(longest, inner.num_special_tokens_to_add(pair) if specials else 0)
            inner.enable_truncation(longest)
        return inner

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "pad": self.pad, "end": self.end}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        if self._inner is None:
            return
        self._inner.no_padding()
        self._inner.no_truncation()
        self.pad, self.end = state["pad"], state["end"]
        self.size = 1 + max(self._inner.get_vocab(with_added_tokens=True).values())
        hiding = (self._inner.token_to_id(name) for name in ("[MASK]", "<mask>"))
        self.mask = next((token for token in hiding if token is not None), None)
        pair = self._inner.encode("a", "b")
        self.segmented = 1 in pair.type_ids and self.end in pair.ids


def longer(tokeniser: Any, texts: Texts, most: int, specials: bool = True) -> np.ndarray:
    """bool (N,): which texts have more than `most` tokens. No text is read much further than that."""
    texts = _as_bytes(texts)
    found = np.zeros(len(texts), dtype=bool)
    able = np.flatnonzero(3 * texts.lengths + 2 > most)  # normalising makes up to three letters of one
    if len(able):
        further = most + 4  # bytes are cut where a character begins, up to three before
        found[able] = tokeniser.encode(texts[able], longest=further, specials=specials).lengths > most
    return found


def windows(texts: Ragged, size: int = 512) -> Ragged:
    """Texts cut into windows of `size` bytes or up to three more, as even as possible, that begin where a character begins.

    What is no UTF-8 is cut anywhere.
    """
    lengths = texts.lengths
    count = -(-lengths // size)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    begin = np.repeat(texts.offsets[:-1], count)
    cut = aim = begin + place * np.repeat(lengths, count) // np.repeat(count, count)
    values = texts.values
    for _ in range(3):
        cut = cut - ((cut > begin) & ((values[cut] & 0xC0) == 0x80))
    cut = np.where((values[cut] & 0xC0) == 0x80, aim, cut)
    return Ragged(values, np.unique(np.append(cut, texts.offsets[-1])))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise missing_extra("this tokeniser", "tokenizers", "text") from None
    return tokenizers


def _as_bytes(texts: Texts) -> Ragged:
    return texts if isinstance(texts, Ragged) else Ragged.of_texts(texts)


def _room(longest: int, specials: int) -> int:
    if longest < specials:
        raise ValueError(f"{specials} special tokens do not fit into {longest}")
    return longest - specials


def _finished(rows: Ragged, lengths: np.ndarray, shift: int, end: int | None, pad: int) -> Ragged:
    """The first `lengths` values of each row plus `shift` as int32, with `end` behind them where it is not None."""
    added = int(end is not None)
    offsets = np.concatenate([[0], np.cumsum(lengths + added)])
    if (lengths == rows.lengths).all():
        taken = rows.values[rows.offsets[0] : rows.offsets[-1]]
    else:
        before = offsets[:-1] - added * np.arange(len(rows))
        taken = rows.values[np.arange(lengths.sum()) + np.repeat(rows.offsets[:-1] - before, lengths)]
    ids = np.add(taken, shift, dtype=np.int32)
    if end is not None:
        bare, ids = ids, np.full(offsets[-1], end, dtype=np.int32)
        inside = np.ones(len(ids), dtype=bool)
        inside[offsets[1:] - 1] = False
        ids[inside] = bare
    return Ragged(ids, offsets, pad)


def _whole_characters(texts: Ragged, most: int) -> np.ndarray:
    """Lengths of the rows cut to `most` bytes or up to three less, where a character begins."""
    lengths = texts.lengths
    long = np.flatnonzero(lengths > most)
    begins = texts.offsets[:-1][long]
    cut = begins + most
    for _ in range(3):
        cut = cut - (_continues(texts.values[cut]) & (cut > begins))
    torn = _continues(texts.values[cut]) & (cut > begins)  # no character has so many bytes: it is no UTF-8
    lengths[long] = np.where(torn, most, cut - begins)
    return lengths


def _continues(values: np.ndarray) -> np.ndarray:
    return (values & 0xC0) == 0x80


def _parts(lengths: np.ndarray) -> Iterator[slice]:
    """Consecutive rows of _AT_A_TIME bytes or so, at least one."""
    ends, begin = np.cumsum(lengths), 0
    while begin < len(ends):
        before = ends[begin] - lengths[begin]
        end = max(begin + 1, int(np.searchsorted(ends, before + _AT_A_TIME)))
        yield slice(begin, end)
        begin = end


def _in_parts(texts: Ragged) -> Iterator[list[str]]:
    return (_strings(texts, rows) for rows in _parts(texts.lengths))


def _strings(texts: Ragged, rows: slice) -> list[str]:
    """Consecutive rows as strings, without a copy of their bytes."""
    first, last = texts.offsets[rows.start], texts.offsets[rows.stop]
    return Ragged(texts.values[first:last], texts.offsets[rows.start : rows.stop + 1] - first).texts()


def _stretches(text: str) -> Iterator[str]:
    """The text in pieces that are encoded as they are within the whole."""
    begin = 0
    while len(text) - begin > _STRETCH:
        gap = _GAP.search(text, begin + _STRETCH)
        if gap is None:
            break
        yield text[begin : gap.start()]
        begin = gap.start()
    yield text[begin:]


def _beginnings(
    rows: Callable[[list[str]], list[np.ndarray]], texts: list[str], longest: int | None
) -> list[np.ndarray]:
    """The first `longest` ids of each text: of a long one only the beginning is encoded, unless that gives too few."""
    if longest is None:
        return rows(texts)
    gaps = [_GAP.search(text, _ROOMY * longest) for text in texts]
    found = rows([text if gap is None else text[: gap.start()] for text, gap in zip(texts, gaps, strict=True)])
    for place, gap in enumerate(gaps):
        if gap is not None and len(found[place]) < longest:
            found[place] = rows([texts[place]])[0]
    return found


def _letters() -> list[str]:
    """The character that byte-level BPE writes for each byte: itself where it prints, else one from U+0100 on."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in prints else chr(next(others)) for byte in range(256)]


def _read(folder: Path) -> dict[str, Any]:
    """The state of a `Pretrained`."""
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        inner = _library().Tokenizer.from_str(text)
    except (OSError, UnicodeError) as error:
        raise DataError(
            f"{folder} has no tokenizer.json that can be read ({error})",
            "write one with save_pretrained of its AutoTokenizer in transformers",
        ) from None
    except PapertrialError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(f"{folder / 'tokenizer.json'} is not a tokeniser ({error})", "it may be damaged") from None
    named: dict[str, Any] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        if file.is_file():
            named |= read_json(file)
    ids = {}
    for role in ("pad_token", "eos_token", "sep_token"):
        token = named.get(role)
        ids[role] = inner.token_to_id(token["content"] if isinstance(token, dict) else token) if token else None
    end = ids["sep_token"] if ids["eos_token"] is None else ids["eos_token"]
    pad = end if ids["pad_token"] is None else ids["pad_token"]
    if pad is None:
        raise DataError(
            f"{folder} names neither a padding token nor one that ends a text", "add pad_token to tokenizer_config.json"
        )
    return {"tokeniser": text, "pad": pad, "end": end}
