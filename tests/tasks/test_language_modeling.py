"""Language modelling: what is held out, windows, bits of models and estimators, and whole commands on text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertrial.baselines import majority, ngram, text_transformer
from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.recipe import Optim
from papertrial.core.task import Ragged, Split
from papertrial.data import open as open_data
from papertrial.data.texts import Texts
from papertrial.nn.heads import NextToken
from papertrial.nn.tokenise import Bpe, Bytes
from papertrial.tasks import language_modeling
from papertrial.tasks.language_modeling import TASK, overlapping, windows
from papertrial.testing import Bench, checks_for
from papertrial.use.choose import choose_task, prepare, task_for

WORDS = (
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "dogs",
    "ran",
    "over",
    "hills",
    "and",
    "rivers",
    "under",
    "moons",
)


def prose(sentences, seed=0):
    rng = np.random.default_rng(seed)
    return "".join(" ".join(rng.choice(WORDS, 9)).capitalize() + ".\n" for _ in range(sentences))


def corpus(*texts, part=None):
    return Texts.from_strings(list(texts), part=part)


def held(prepared):
    return {
        name: b"".join(row.encode() for row in getattr(prepared, name)["text"].texts())
        for name in ("train", "valid", "test")
    }


# --- what is held out ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=8), st.integers(1, 40))
def test_windows_hold_the_text_and_begin_with_characters(texts, size):
    column = Ragged.of_texts(texts)
    cut = windows(column, size)
    assert "".join(part.tobytes().decode("utf-8", "surrogateescape") for part in [cut.values]) == "".join(
        text.encode("utf-8", "replace").decode() for text in texts
    )
    assert cut.lengths.max(initial=0) <= max(size + 3, 4)
    if size >= 4:
        assert all("\ufffd" not in row or any("\ufffd" in text or "?" in text for text in texts) for row in cut.texts())
        assert (cut.lengths > 0).all()


def test_windows_of_a_text_are_as_even_as_possible():
    cut = windows(Ragged.of_texts(["x" * 1030, "", "y" * 512]))
    assert cut.lengths.tolist() == [343, 343, 344, 512]


@pytest.mark.parametrize("documents", [1, 3, 200])
def test_parts_share_no_byte_and_test_rows_depend_on_the_data_alone(documents):
    texts = [prose(1200 // documents, seed) for seed in range(documents)]
    first, second = (TASK.prepare(corpus(*texts), seed) for seed in (0, 1))
    assert np.array_equal(first.test["text"].values, second.test["text"].values)
    assert not np.array_equal(first.valid["text"].values, second.valid["text"].values)
    total = sum(len(text.encode()) for text in texts)
    sizes = {name: len(content) for name, content in held(first).items()}
    assert sum(sizes.values()) == total, "every byte is in one part"
    assert 0.1 * total <= sizes["test"] <= 0.16 * total
    assert 0.09 * total <= sizes["valid"] <= 0.16 * total
    assert first.facts.causal and first.facts.bytes == sizes["train"]


def test_blocks_of_one_document_end_with_lines_and_neighbours_stay_together():
    text = prose(1000)
    prepared = TASK.prepare(corpus(text))
    for row in prepared.train["text"].texts():
        assert row in text and row.endswith(".\n")
    assert len(prepared.train["text"]) < language_modeling.PARTS, "neighbouring blocks are one text"


def test_given_parts_are_kept():
    parts = [prose(60, seed) for seed in range(3)]
    found = held(TASK.prepare(corpus(*parts, part=[0, 1, 2])))
    assert [found[name].decode() for name in ("train", "valid", "test")] == parts
    found = held(TASK.prepare(corpus(*parts, part=[0, 0, 2])))
    assert found["test"].decode() == parts[2] and found["valid"]


def test_documents_that_are_equal_stay_on_one_side():
    texts = [prose(6, seed) for seed in range(60)]
    doubled = corpus(*texts, *(text.upper().replace(" ", "  ") for text in texts))
    for seed in range(3):
        found = {
            name: set(content.decode().lower().split("\n"))
            for name, content in held(TASK.prepare(doubled, seed)).items()
        }
        found = {name: {" ".join(line.split()) for line in lines} - {""} for name, lines in found.items()}
        assert (
            not found["train"] & found["test"]
            and not found["train"] & found["valid"]
            and not found["valid"] & found["test"]
        )


def test_a_fraction_is_one_of_training_text():
    data = corpus(prose(2000))
    whole, half = (TASK.prepare(data, 0, fraction=fraction) for fraction in (1.0, 0.5))
    assert np.array_equal(whole.test["text"].values, half.test["text"].values)
    assert half.facts.bytes == pytest.approx(0.5 * whole.facts.bytes, rel=0.1)


def test_many_windows_are_judged_on_some(monkeypatch):
    monkeypatch.setattr(language_modeling, "MOST", 7)
    prepared = TASK.prepare(corpus(prose(3000)))
    assert prepared.test.examples == 7 and any("spread evenly" in note for note in prepared.notes)


def test_text_that_stands_in_two_parts_is_told_of():
    lines = prose(400).splitlines(keepends=True)
    again = corpus("".join(lines[:300]), prose(40, 7), "".join(lines[150:400]), part=[0, 1, 2])
    (note,) = [note for note in TASK.prepare(again).notes if "is in the training text too" in note]
    assert int(note.partition("%")[0]) == pytest.approx(60, abs=3)
    apart = corpus("".join(lines[:200]), prose(40, 7), "".join(lines[200:]), part=[0, 1, 2])
    assert not any("is in the training text" in note for note in TASK.prepare(apart).notes)


def test_what_cannot_be_used_is_said():
    with pytest.raises(DataError, match="bytes of text"):
        TASK.prepare(corpus("too short"))
    with pytest.raises(PapertrialError, match="fraction"):
        TASK.prepare(corpus(prose(100)), fraction=0)
    assert not TASK.supports(open_data("digits").look())
    prepared = TASK.prepare(corpus(prose(100)))
    with pytest.raises(Declined, match="not made for"):
        TASK.build(registry.method("mlp_mixer"), None, Optim(), prepared)
    method = registry.method("text_transformer")
    with pytest.raises(Declined, match="next token"):
        TASK.build(method, text_transformer.Config(causal=False), Optim(), prepared)
    with pytest.raises(Declined, match="no answer"):
        TASK.answers(np.zeros(3), {})


# --- bits ----------------------------------------------------------------------------------------------------------------


class Uniform(nn.Module):
    """Says of every token that it is as probable as any other."""

    def __init__(self, tokeniser, longest):
        super().__init__()
        self.tokeniser, self.longest, self.read = tokeniser, longest, 0

    def fit_inputs(self, columns):
        self.tokeniser.fit(columns["text"])

    def logits(self, ids):
        assert ids.shape[1] <= self.longest
        self.read += ids.numel()
        return torch.zeros(*ids.shape, self.tokeniser.size)


@pytest.mark.parametrize("longest", [1, 7, 64, 5000])
def test_every_token_of_a_window_is_predicted_once(longest):
    model = NextToken(Uniform(Bytes(), longest))
    prepared = TASK.prepare(corpus(prose(300), "häßlich 日本語\n" * 200))
    split = prepared.test
    bits = TASK.outputs(model, {}, split)
    np.testing.assert_allclose(bits, split["text"].lengths * math.log2(259), rtol=1e-6)
    assert TASK.score(bits, split, prepared.state).metrics["bits_per_byte"] == pytest.approx(math.log2(259))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_rows_that_overlap_say_each_id_once_with_what_is_before_it(lengths, longest):
    ids = Ragged.of([np.arange(length) for length in lengths])
    rows, source, known = overlapping(ids, longest)
    said = [[] for _ in lengths]
    for row, (origin, count) in enumerate(zip(source, known, strict=True)):
        content = rows[row].tolist()
        assert (
            len(content) <= longest and content == list(range(content[0], content[0] + len(content)))
            if content
            else True
        )
        assert not content or count == 0 or count >= longest // 2
        said[origin] += content[count:]
    assert said == [list(range(length)) for length in lengths]


def test_bits_do_not_depend_on_the_rows_of_a_batch(monkeypatch):
    torch.manual_seed(0)
    config = text_transformer.Config(width=16, depth=2, heads=2, hidden=32, longest=40, causal=True)
    model = NextToken(text_transformer.build(config, Facts("text", 1))).double()
    split = TASK.prepare(corpus(prose(200), prose(3, 1))).test
    together = TASK.outputs(model, {}, split)
    monkeypatch.setattr(language_modeling, "_TOKENS", 1)
    np.testing.assert_allclose(TASK.outputs(model, {}, split), together, rtol=1e-9)


def test_training_rows_are_the_text_with_ends_between():
    prepared = TASK.prepare(corpus(*(prose(30, seed) for seed in range(12))))
    model = NextToken(Uniform(Bpe(400), 50))
    rows = TASK.training(model, prepared)["ids"]
    assert rows.shape[1] == 50
    texts = prepared.train["text"].texts()
    ids = model.encoder.tokeniser.encode(texts).values
    assert np.array_equal(rows.reshape(-1), ids[: rows.size]) and ids.size - rows.size < 50
    assert (ids == model.encoder.tokeniser.end).sum() == len(texts)


def test_a_tokeniser_that_loses_text_is_declined():
    class Lossy(Bytes):
        def encode(self, texts, longest=None, specials=True):
            return super().encode(
                [text.lower() for text in texts.texts()] if isinstance(texts, Ragged) else [t.lower() for t in texts],
                longest,
                specials,
            )

    with pytest.raises(Declined, match="loses"):
        TASK.training(NextToken(Uniform(Lossy(), 64)), TASK.prepare(corpus(prose(100))))


def test_the_head_predicts_each_token_from_those_before_it():
    """The loss is the cross-entropy of each token given the start and the tokens before; padding counts for nothing."""
    torch.manual_seed(0)
    config = text_transformer.Config(width=16, depth=1, heads=2, hidden=32, causal=True)
    backbone = text_transformer.build(config, Facts("text", 1)).double()
    head = NextToken(backbone)
    ids = torch.randint(3, 259, (2, 9))
    ids[1, 6:] = 0
    nats = []
    for row, length in ((0, 9), (1, 6)):
        for place in range(length):
            given = torch.cat([torch.tensor([head.start]), ids[row, :place]])
            nats.append(-backbone.logits(given[None])[0, -1].log_softmax(-1)[ids[row, place]])
    found = head.loss({"ids": ids})
    torch.testing.assert_close(found["loss"], torch.stack(nats).mean())
    assert not head(ids)[1, 6:].any()


def test_per_example_means_are_the_metric():
    prepared = TASK.prepare(corpus(prose(200), prose(5, 1)))
    model = majority.build(majority.Config(), prepared.facts)
    model.fit(prepared.train, prepared.valid, prepared.facts, Budget(), 0, None)
    bits = TASK.outputs(model, {}, prepared.test)
    scores = TASK.score(bits, prepared.test, prepared.state)
    total = prepared.test["text"].lengths.sum()
    assert (
        scores.metrics["bits_per_byte"] == pytest.approx(bits.sum() / total) == pytest.approx(scores.per_example.mean())
    )
    shares = np.bincount(prepared.train["text"].values, minlength=256) + 1
    expected = -np.log2(shares / shares.sum())[prepared.test["text"].values].sum() / total
    assert scores.metrics["bits_per_byte"] == pytest.approx(expected)
    low, high = scores.intervals["bits_per_byte"]
    assert low < scores.metrics["bits_per_byte"] < high


# --- n-grams -------------------------------------------------------------------------------------------------------------


def fitted(order, *texts):
    model = ngram.build(ngram.Config(order=order), Facts("text", 1))
    model.fit(Split({"text": Ragged.of_texts(texts)}), Split({}), Facts("text", 1), Budget(), 0, None)
    return model


def chances(model, context):
    """Probabilities of the 256 bytes that may follow."""
    before = context.encode()
    rows = [before, *(before + bytes([byte]) for byte in range(256))]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    bits = model.outputs(Split({"text": Ragged(np.frombuffer(b"".join(rows), np.uint8), offsets)}))
    return 2.0 ** -(bits[1:] - bits[0])


@pytest.mark.parametrize("order", [1, 2, 5, 8])
@pytest.mark.parametrize("context", ["", "t", "the ca", "zzz never seen", "moon"])
def test_probabilities_add_up_to_one(order, context):
    found = chances(fitted(order, prose(50), "", "ab", prose(3, 2)), context)
    assert (found > 0).all() and found.sum() == pytest.approx(1, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(alphabet="abc", max_size=12), min_size=1, max_size=5),
    st.text(alphabet="abcd", max_size=6),
    st.integers(1, 8),
)
def test_probabilities_add_up_to_one_on_any_text(texts, context, order):
    assert chances(fitted(order, *texts), context).sum() == pytest.approx(1, abs=1e-9)


def test_probabilities_equal_counts_taken_one_by_one():
    """Modified Kneser-Ney written with dictionaries, order 3."""
    texts = [prose(20, seed) for seed in range(3)]
    rows = [text.encode() for text in texts]
    counts = {3: {}, 2: {}, 1: {}}
    for row in rows:
        for end in range(3, len(row) + 1):
            counts[3][row[end - 3 : end]] = counts[3].get(row[end - 3 : end], 0) + 1
    for k in (2, 1):
        before = {gram: set() for gram in {longer[1:] for longer in counts[k + 1]} | {row[:k] for row in rows}}
        for longer in counts[k + 1]:
            before[longer[1:]].add(longer[0])
        for row in rows:
            before[row[:k]].add(None)
        counts[k] = {gram: len(seen) for gram, seen in before.items()}

    def chance(context, byte, k):
        if k == 0:
            return 1 / 256
        shorter = chance(context[1:], byte, k - 1)
        follow = {gram: count for gram, count in counts[k].items() if gram[:-1] == context}
        if not follow:
            return shorter
        taken = ngram.discounts(np.array(list(counts[k].values())))
        total = sum(follow.values())
        own = follow.get(context + bytes([byte]), 0)
        spread = sum(taken[min(count, 3)] for count in follow.values())
        return (own - taken[min(own, 3)]) / total + spread / total * shorter

    found = chances(fitted(3, *texts), "the ca")
    expected = [chance(b"ca", byte, 3) for byte in range(256)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_discounts_are_those_of_the_paper():
    counts = np.repeat([1, 2, 3, 4], [100, 40, 20, 10])
    rate = 100 / 180
    np.testing.assert_allclose(ngram.discounts(counts), [0, 1 - 2 * rate * 0.4, 2 - 3 * rate * 0.5, 3 - 4 * rate * 0.5])
    assert ngram.discounts(np.array([], dtype=np.int64)).tolist() == [0, 0.5, 1, 1.5]


def test_longer_contexts_predict_better_and_a_loaded_model_the_same(tmp_path):
    text, other = prose(400), Split({"text": Ragged.of_texts([prose(20, 9)])})
    bits = [float(fitted(order, text).outputs(other)[0]) for order in (1, 3, 5)]
    assert bits[0] > bits[1] > bits[2]
    model = fitted(5, text)
    model.save(tmp_path)
    again = ngram.build(ngram.Config(order=5), Facts("text", 1)).load(tmp_path)
    assert np.array_equal(again.outputs(other), model.outputs(other))


def test_an_order_out_of_range_is_refused():
    for order in (0, 9):
        with pytest.raises(PapertrialError, match="order"):
            fitted(order, "abc")


# --- whole commands ------------------------------------------------------------------------------------------------------


def test_a_text_file_from_look_to_generate(papertrial):
    Path("book.txt").write_text(prose(400), encoding="utf-8")
    Path("other.txt").write_text(prose(100, 5), encoding="utf-8")
    assert "language_modeling" in papertrial("look", "book.txt")[1]
    code, fitted, _ = papertrial(
        "fit", "text_transformer", "--data", "book.txt", "--recipe", "tiny", "--out", "run", "-q"
    )
    assert code == 0 and "bits_per_byte" in fitted
    code, judged, _ = papertrial("evaluate", "run", "other.txt", "--json")
    assert code == 0 and 0 < json.loads(judged)["metrics"]["bits_per_byte"] < 5
    assert papertrial("report", "run")[0] == 0
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "bits_per_byte" in page and "with a label" not in page
    code, said, _ = papertrial("generate", "run", "The cat", "--length", "20")
    assert code == 0 and said.startswith("The cat")
    code, _, error = papertrial("predict", "run", "other.txt")
    assert code and "no answer for each example" in error and "Traceback" not in error


def test_methods_are_compared_in_bits_per_byte(papertrial):
    Path("book.txt").write_text(prose(400), encoding="utf-8")
    code, said, error = papertrial(
        "compare", "switch", "--data", "book.txt", "--recipe", "tiny", "--seeds", "2", "--budget", "20steps", "-q"
    )
    assert code == 0, error
    assert "bits_per_byte (lower is better)" in said
    assert all(name in said for name in ("switch", "text_transformer", "ngram", "majority"))


def test_labelled_texts_are_classified_unless_asked_otherwise():
    labelled = open_data("python-lines")
    assert choose_task(labelled).name == "text_classification"
    assert task_for(registry.method("text_transformer"), labelled).name == "text_classification"
    assert choose_task(labelled, "language_modeling") is TASK
    assert choose_task(corpus(prose(100))) is TASK


@pytest.mark.parametrize("check", ["learns", "gradients", "directional_derivative", "resume", "bfloat16", "compiled"])
@pytest.mark.parametrize("name", ["text_transformer", pytest.param("switch", marks=pytest.mark.slow)])
def test_the_battery_on_running_text(name, check):
    """The battery of all papers takes their first task, which is another one."""
    checks_for(name)[check](Bench(registry.method(name), TASK, prepare(TASK, open_data("python-lines"))))


def test_groups_are_refused_and_not_forgotten():
    words = [f"words of the {place}th text, which are about as long as others are" for place in range(60)]
    data = open_data(words)
    registry.task("language_modeling").prepare(data)
    data.group, data.together = "author", np.repeat(np.arange(20), 3)
    with pytest.raises(DataError, match="rows of one 'author' cannot be kept together; leave --group out"):
        registry.task("language_modeling").prepare(data)
