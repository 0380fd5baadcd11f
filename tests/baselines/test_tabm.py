"""TabM: the authors' network, its mean over members, what it learns, and that it comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.recipe import resolve
from papertrial.core.task import Split

tabm = pytest.importorskip("tabm")


def table(classes, rows=400, seed=0, numeric=3):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((rows, numeric)).astype(np.float32)
    codes = draw.integers(0, 4, (rows, 1))
    signal = 2 * x[:, 0] + 3 * (codes[:, 0] == 1)
    x[draw.random(x.shape) < 0.05] = np.nan
    codes[draw.random(codes.shape) < 0.05] = 4  # unseen or missing
    columns = {"numeric": x, "categorical": codes}
    if classes:
        columns["label"] = np.digitize(signal, np.linspace(0, 2, classes - 1)).astype(np.int64)
    else:
        columns["target"] = (signal * 10 + 500).astype(np.float32)
    facts = Facts("table", rows, rows, numeric=numeric, cardinalities=(4,), classes=classes, outputs=classes or 1)
    return Split(columns), facts


def made(facts, **settings):
    module = registry.method("tabm").module
    config, _ = resolve(module.Config, facts, {"tiny": module.recipes["tiny"].config, "you": settings})
    return module.build(config, facts)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_it_learns_and_comes_back(tmp_path, classes):
    (train, facts), (valid, _), (test, _) = (table(classes, seed=seed) for seed in range(3))
    model = made(facts)
    meter = model.fit(train, valid, facts, Budget(), 0, None)
    assert meter.trials == 1 and meter.steps > 2 and meter.samples == 64 * meter.steps
    out = model.outputs(test)
    if classes:
        assert out.shape == (400, classes) and np.allclose(out.sum(1), 1)
        common = np.bincount(test["label"]).max() / 400
        assert (out.argmax(1) == test["label"]).mean() > common + 0.15
    else:
        assert np.sqrt(np.mean((out - test["target"]) ** 2)) < 0.6 * test["target"].std()
    model.save(tmp_path)
    np.testing.assert_array_equal(made(facts).load(tmp_path).outputs(test), out)
    if classes == 2:
        again = made(facts)
        again.fit(train, valid, facts, Budget(), 0, None)
        np.testing.assert_allclose(again.outputs(test), out, rtol=1e-6)  # it depends on the seed alone
    assert model.outputs(test.take(slice(0, 0))).shape == ((0, classes) if classes else (0,))


def test_the_network_is_the_authors_and_the_answer_its_mean():
    train, facts = table(3)
    model = made(facts)
    model.network.numbers.fit(train["numeric"])
    theirs = tabm.TabM.make(n_num_features=3, cat_cardinalities=[5], d_out=3, k=4, n_blocks=1, d_block=16, dropout=0.1)
    theirs.load_state_dict(model.network.members.state_dict())
    numeric = model.network.numbers(torch.from_numpy(train["numeric"]))
    with torch.no_grad():
        logits = theirs.eval()(x_num=numeric, x_cat=torch.from_numpy(train["categorical"]))
    np.testing.assert_allclose(model.outputs(train), logits.softmax(-1).mean(1).numpy(), atol=1e-6)
    label = torch.from_numpy(train["label"])
    own = torch.stack([torch.nn.functional.cross_entropy(logits[:, i], label) for i in range(4)]).mean()
    assert model._loss(logits, label).item() == pytest.approx(own.item(), rel=1e-5)


def test_numbers_pass_through_scikit_learns_quantiles():
    from sklearn.preprocessing import QuantileTransformer

    from papertrial.baselines.tabm import QuantileNormal

    x = np.random.default_rng(0).gamma(2.0, size=(300, 2)).round(1)
    theirs = QuantileTransformer(n_quantiles=20, output_distribution="normal", subsample=None).fit(x)
    ours = QuantileNormal(2, 20)
    ours.fit(x)
    asked = np.array([[0.5, 1.5], [-9.0, 99.0], [2.0, 0.7]])
    np.testing.assert_allclose(ours(torch.from_numpy(asked)).numpy(), theirs.transform(asked), atol=1e-4)


def test_the_seconds_are_kept_and_columns_of_one_sort_will_do():
    (train, facts), (valid, _) = table(2), table(2, seed=1)
    meter = made(facts, patience=10_000).fit(train, valid, facts, Budget(seconds=0.3), 0, None)
    assert 1 <= meter.steps < 10_000 and meter.seconds < 20
    (train, facts), (valid, _) = table(2, numeric=1), table(2, seed=1, numeric=1)
    bare = Facts("table", 400, 400, cardinalities=(4,), classes=2, outputs=2)
    rows = [Split({"numeric": part["numeric"][:, :0], "categorical": part["categorical"], "label": part["label"]})
            for part in (train, valid)]  # fmt: skip
    assert made(bare).fit(*rows, bare, Budget(seconds=5), 0, None).steps > 0


def test_where_the_package_is_missing_it_is_said(monkeypatch):
    monkeypatch.setitem(registry.EXTRA_MODULES, "tabm", ("no_such_package",))
    with pytest.raises(PapertrialError, match=r"pip install 'papertrial\[tabm\]'"):
        registry.load("tabm")
