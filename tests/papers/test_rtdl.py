"""FT-Transformer, ResNet and MLP against the authors' package; the quantile transform against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import rtdl_revisiting_models as authors
import torch
from sklearn.preprocessing import QuantileTransformer
from torch import nn

from papertrial.claims import rtdl as claims
from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import claims_of
from papertrial.core.recipe import resolve
from papertrial.nn.heads import Supervised
from papertrial.papers import rtdl

OUTPUTS = 2
CLAIMS = {claim.name: claim for claim in claims_of(claims)}


def translated(tensors: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """The authors' tensors (weights or gradients) under our names; `names` maps prefixes."""
    out = {}
    for name, tensor in tensors.items():
        prefix = max((prefix for prefix in names if name.startswith(prefix)), key=len)
        out[names[prefix] + name[len(prefix) :]] = tensor
    for place in ("model.tokenizer.bias", "model.tokenizer.categories.weight"):  # one table here, several there
        parts = [out.pop(name) for name in sorted(out) if name.startswith(f"{place} ")]
        out |= {place: torch.cat(parts)} if parts else {}
    return out


def assert_same(
    theirs: nn.Module, ours: nn.Module, names: dict[str, str], their_inputs: tuple, our_inputs: tuple
) -> None:
    """Values and gradients agree when both hold the same random weights."""
    both = nn.ModuleDict({"model": ours, "head": ours.make_head(OUTPUTS)}).double()
    theirs = theirs.double()
    for name, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "running_var" in name else torch.randn_like(value) * 0.3)
    state = translated({name: value.clone() for name, value in theirs.state_dict().items()}, names)
    assert not both.load_state_dict(state, strict=False).unexpected_keys
    both.train(theirs.training)
    expected, got = theirs(*their_inputs), both["head"](both["model"](*our_inputs))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    for out in (expected, got):
        (out**3).sum().backward()
    wanted = translated({name: p.grad for name, p in theirs.named_parameters()}, names)
    largest = max(float(grad.abs().max()) for grad in wanted.values())
    for name, parameter in both.named_parameters():
        if parameter.numel():
            torch.testing.assert_close(parameter.grad, wanted.pop(name), rtol=1e-9, atol=1e-12 * largest)
    assert not wanted


@pytest.mark.parametrize(("compression", "sharing"), [(0.0, "headwise"), (0.4, "headwise"), (0.4, "key-value")])
def test_dropout_of_the_attention_is_for_training_alone(compression, sharing):
    torch.manual_seed(0)
    model = rtdl.FTTransformer(5, (), 2, 16, 4, 4 / 3, 0.5, 0.0, 0.0, compression, sharing)
    x = torch.randn(8, 5), torch.zeros(8, 0, dtype=torch.int64)
    assert not torch.equal(model(*x), model(*x))
    model.eval()
    assert torch.equal(model(*x), model(*x))


@pytest.mark.parametrize(
    ("rows", "numeric", "categorical", "expected"),
    [(99_999, 500, 0, (64, 0.0)), (100_000, 0, 500, (192, 0.0)), (100_000, 250, 251, (192, 0.064)), (9, 501, 0, (64, 0.064))],
)  # fmt: skip
def test_width_follows_the_rows_and_compression_the_columns(rows, numeric, categorical, expected):
    facts = Facts("table", rows, rows, numeric=numeric, cardinalities=(3,) * categorical, classes=2, outputs=2)
    config, _ = resolve(rtdl.Config, facts, {})
    assert (config.width, config.compression) == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("numeric", "cards"), [(5, ()), (5, (3, 7)), (0, (3, 7))])
@pytest.mark.parametrize(("compression", "sharing"), [(0.0, "headwise"), (0.4, "headwise"), (0.4, "key-value")])
def test_ft_transformer_agrees_with_the_authors_in_values_and_gradients(depth, numeric, cards, compression, sharing):
    torch.manual_seed(depth)
    linformer = {"linformer_kv_compression_ratio": compression, "linformer_kv_compression_sharing": sharing}
    theirs = authors.FTTransformer(
        n_cont_features=numeric,
        cat_cardinalities=[size + 1 for size in cards],
        d_out=OUTPUTS,
        n_blocks=depth,
        d_block=24,
        attention_n_heads=4,
        attention_dropout=0.0,
        ffn_d_hidden_multiplier=4 / 3,
        ffn_dropout=0.0,
        residual_dropout=0.0,
        **(linformer if compression else {}),
    )
    ours = rtdl.FTTransformer(numeric, cards, depth, 24, 4, 4 / 3, 0.0, 0.0, 0.0, compression, sharing)
    names = {
        "cls_embedding.weight": "model.tokenizer.cls",
        "cont_embeddings.weight": "model.tokenizer.weight",
        "cont_embeddings.bias": "model.tokenizer.bias 1",
        "cat_embeddings.bias": "model.tokenizer.bias 2",
        **{
            f"cat_embeddings.embeddings.{i}.weight": f"model.tokenizer.categories.weight {i}" for i in range(len(cards))
        },
        "backbone.output.normalization": "head.0",
        "backbone.output.linear": "head.2",
    }
    parts = {
        "attention.W_q": "attention.query",
        "attention.W_k": "attention.key",
        "attention.W_v": "attention.value",
        "attention.W_out": "attention.out",
        "attention.key_compression": "attention.key_map",
        "attention.value_compression": "attention.value_map",
        "attention_normalization": "attention_norm",
        "ffn_normalization": "ffn_norm",
        "ffn.linear1": "wide",
        "ffn.linear2": "narrow",
    }
    for index in range(depth):
        names |= {f"backbone.blocks.{index}.{a}": f"model.blocks.{index}.{b}" for a, b in parts.items()}
    x = torch.randn(9, numeric, dtype=torch.float64) * 4 + 1
    codes = torch.stack([torch.randint(0, size + 1, (9,)) for size in cards], 1) if cards else torch.zeros(9, 0).long()
    assert_same(theirs, ours, names, (x if numeric else None, codes if cards else None), (x, codes))


@pytest.mark.parametrize("training", [True, False])
def test_resnet_agrees_with_the_authors_in_values_and_gradients(training):
    torch.manual_seed(0)
    size = {"n_blocks": 2, "d_block": 12, "d_hidden_multiplier": 2.0, "dropout1": 0.0, "dropout2": 0.0}
    theirs = authors.ResNet(d_in=7, d_out=OUTPUTS, **size).train(training)
    names = {"input_projection": "model.enter", "output.normalization": "head.0", "output.linear": "head.2"}
    for index in range(2):
        for place, layer in (("normalization", 0), ("linear1", 1), ("linear2", 4)):
            names[f"blocks.{index}.{place}"] = f"model.blocks.{index}.{layer}"
    x = torch.randn(16, 7, dtype=torch.float64) * 5 - 2
    assert_same(theirs, rtdl.ResNet(7, 2, 12, 2.0, 0.0, 0.0), names, (x,), (x,))


def test_mlp_agrees_with_the_authors_in_values_and_gradients():
    torch.manual_seed(0)
    theirs = authors.MLP(d_in=7, d_out=OUTPUTS, n_blocks=3, d_block=12, dropout=0.0)
    names = {"output": "head", **{f"blocks.{i}.linear": f"model.layers.{3 * i}" for i in range(3)}}
    x = torch.randn(16, 7, dtype=torch.float64) * 5 - 2
    assert_same(theirs, rtdl.MLP(7, 3, 12, 0.0), names, (x,), (x,))


def awkward_columns(rows: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    normal = draw.standard_normal(rows)
    return np.column_stack(
        [
            normal,
            np.exp(2 * normal),
            normal * 1e4 + 1e6,
            np.round(normal),  # ties
            np.where(draw.random(rows) < 0.6, 0.0, np.abs(normal)),  # most values at the lower end
            draw.integers(0, 2, rows),
        ]
    ).astype(np.float64)


@pytest.mark.parametrize("rows", [11, 500, 4000])
def test_quantiles_agree_with_scikit_learn(rows):
    train, test = awkward_columns(rows), awkward_columns(700)[::-1] * 1.5
    test[0], test[1] = 1e300, -1e300
    count = rtdl.quantile_count(rows)
    reference = QuantileTransformer(output_distribution="normal", n_quantiles=count, subsample=None).fit(train)
    ours = rtdl.QuantileNormal(train.shape[1], count, noise=0.0).double()
    ours.fit(train)
    for values in (train, test):
        expected = reference.transform(values)
        np.testing.assert_allclose(ours(torch.from_numpy(values.copy())).numpy(), expected, rtol=1e-8, atol=1e-8)


def test_noise_maps_a_repeated_value_to_the_middle_of_its_range():
    values = np.where(np.arange(3000) < 1800, 0.0, np.random.default_rng(0).random(3000) + 1)[:, None]
    module = rtdl.QuantileNormal(1, 100).double()
    module.fit(values)
    rank = torch.special.ndtr(module(torch.zeros(1, 1, dtype=torch.float64)))
    assert abs(float(rank) - 0.3) < 0.05


def test_quantiles_of_missing_constant_and_infinite_values():
    values = np.array([[1.0, np.nan, 5.0], [2.0, np.nan, 5.0], [np.nan, np.nan, 5.0], [np.inf, np.nan, 5.0]] * 20)
    module = rtdl.QuantileNormal(3, 10)
    module.fit(values)
    out = module(torch.tensor([[np.nan, np.nan, 5.0], [1.5, 3.0, 9.0], [np.inf, -np.inf, -np.inf]]))
    assert torch.isfinite(out).all()
    assert out[0, 0] == out[1, 0]  # missing is the mean
    assert (out[:, 1:] == 0).all()
    with pytest.raises(ValueError, match="there are 3 columns"):
        module.fit(values[:, :2])


def test_an_unfitted_transform_leaves_normal_values_alone():
    x = torch.linspace(-2, 2, 41)[:, None]
    assert (rtdl.QuantileNormal(1, 1000)(x) - x).abs().max() < 1e-3


@pytest.mark.parametrize("variant", sorted(rtdl.variants))
@pytest.mark.parametrize(("numeric", "cards"), [(4, ()), (0, (3, 2)), (4, (3, 2))])
@pytest.mark.parametrize("outputs", [1, 3])
def test_every_model_learns_from_numbers_and_categories(variant, numeric, cards, outputs):
    torch.manual_seed(0)
    facts = Facts(
        "table", 64, 64, numeric=numeric, cardinalities=cards, classes=outputs if outputs > 1 else 0, outputs=outputs
    )
    config = rtdl.Config(**{"width": 16, "heads": 4, "depth": 2, **rtdl.variants[variant]})
    model = Supervised(
        rtdl.build(config, facts), outputs, "classes" if outputs > 1 else "value", ("numeric", "categorical")
    )
    x = torch.randn(64, numeric)
    x[torch.rand_like(x) < 0.1] = torch.nan
    codes = (
        torch.stack([torch.randint(0, size + 1, (64,)) for size in cards], 1) if cards else torch.zeros(64, 0).long()
    )
    label = (x[:, 0] > 0).long() if numeric else codes[:, 0] % 2
    batch = {"numeric": x, "categorical": codes, "label": label, "target": label * 3.0}
    model.encoder.fit_inputs({"numeric": x.numpy(), "categorical": codes.numpy()})
    first = model.loss(batch)
    first.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    assert model.loss(batch) < 0.8 * first
    assert model.no_decay() <= dict(model.named_parameters()).keys()


def test_only_linear_maps_decay():
    model = rtdl.FTTransformer(4, (3,), 2, 16, 4)
    decayed = {name for name, _ in model.named_parameters()} - model.no_decay()
    assert decayed == {
        f"blocks.{i}.{layer}.weight"
        for i in range(2)
        for layer in ("attention.query", "attention.key", "attention.value", "attention.out", "wide", "narrow")
    }


def test_an_unseen_category_adds_nothing_before_training():
    tokenizer = rtdl.Tokenizer(0, (3, 2), 8)
    tokens = tokenizer(torch.zeros(1, 0), torch.tensor([[3, 2]]))
    torch.testing.assert_close(tokens[0, 1:], tokenizer.bias)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"model": "resmet"}, PapertrialError, "did you mean 'resnet'"),
        ({"heads": 7}, PapertrialError, "must be a multiple of heads, which is 7"),
        ({"depth": 0}, PapertrialError, "depth is 0, but it takes a whole number from 1"),
    ],
)
def test_bad_settings_are_named(settings, error, words):
    with pytest.raises(error, match=words):
        rtdl.build(rtdl.Config(**settings), Facts("table", 100, 100, numeric=2, outputs=1))


def test_a_table_without_columns_is_refused():
    with pytest.raises(DataError, match="no columns"):
        rtdl.build(rtdl.Config(), Facts("table", 100, 100, outputs=1))


@pytest.mark.parametrize("name", sorted(name for name, claim in CLAIMS.items() if claim.kind != "trend"))
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_claims_hold(name, seed):
    held, measured = CLAIMS[name]("tiny", seed)
    assert held, measured


def test_a_norm_before_the_first_attention_would_be_seen(monkeypatch):
    """The parity test rests on the missing first norm: with one, the outputs differ."""
    torch.manual_seed(0)
    model = rtdl.FTTransformer(4, (), 1, 16, 4).eval()
    x = torch.randn(5, 4)
    before = model(x)
    model.blocks[0].attention_norm = nn.LayerNorm(16)
    assert (model(x) - before).abs().max() > 1e-3


def test_synthetic_targets_are_standardised_and_differ_in_kind():
    for alpha in (0.0, 1.0):
        x, y = claims.interpolated(alpha, 3000, 8, 4, seed=0)
        assert x.shape == (3000, 8)
        assert abs(float(y.mean())) < 1e-5
        assert abs(float(y.std()) - 1) < 1e-5
    trees = claims.random_trees(x[:, :4], np.random.default_rng(0), trees=1, nodes=5)
    assert len(np.unique(trees)) <= 3


def test_the_slide_runs_and_measures_every_model():
    held, measured = CLAIMS["slide"]("tiny", 0)
    assert held == (measured.pop("margin") > 0)
    assert measured.keys() == {f"{name} at {alpha}" for name in ("ft", "resnet", "catboost") for alpha in (0.0, 1.0)}
    assert all(0 < value < 1.2 for value in measured.values())
    assert measured["catboost at 1.0"] < measured["resnet at 1.0"]


def test_an_exported_model_takes_any_number_of_rows():
    facts = Facts("table", 500, 500, numeric=4, cardinalities=(3, 2), outputs=1)
    rows = torch.export.Dim("rows")
    numeric, categorical = torch.randn(9, 4), torch.randint(0, 3, (9, 2))
    numeric[0, 0] = torch.nan
    for variant in rtdl.variants.values():
        model = rtdl.build(rtdl.Config(**{"width": 32, **variant}), facts).eval()
        exported = torch.export.export(model, (numeric, categorical), dynamic_shapes=({0: rows}, {0: rows})).module()
        torch.testing.assert_close(exported(numeric[:5], categorical[:5]), model(numeric[:5], categorical[:5]))


# tuned on many tables


def planted(monkeypatch, errors):
    """The claim with errors that are told, {table: {method: (on validation rows, on test rows)}}, instead of trained."""
    from papertrial.claims import _rtdl as tables

    monkeypatch.setattr(tables, "TABLES", dict.fromkeys(errors))
    monkeypatch.setattr(tables, "table", lambda name, seed, effort: name)
    monkeypatch.setattr(tables, "tuned", lambda method, name, effort, seed: tables.Found(*errors[name][method]))
    return CLAIMS["no_universal_winner"]("base", 0)


FT, RESNET, CATBOOST, XGBOOST = "rtdl:ft_transformer", "rtdl:resnet", "catboost", "xgboost"
OF_NETS = {FT: (0.8, 0.8), RESNET: (0.9, 0.1), CATBOOST: (1.0, 1.0), XGBOOST: (1.1, 0.1)}
OF_TREES = {FT: (1.0, 1.0), RESNET: (1.1, 0.1), CATBOOST: (0.9, 0.5), XGBOOST: (0.7, 0.7)}


def test_each_side_leads_on_a_table_that_validation_rows_chose(monkeypatch):
    held, measured = planted(monkeypatch, {"a": OF_NETS, "b": OF_TREES})
    assert held and measured["nets_lead"] == pytest.approx(0.2) and measured["trees_lead"] == pytest.approx(0.3)
    assert measured["margin"] == pytest.approx(0.18) and measured["tables_of_nets"] == 0.5


def test_no_test_row_chooses_a_method_or_a_table(monkeypatch):
    """Networks are far ahead on the test rows of `b`, where the validation rows are for trees: it is not their table."""
    lucky = {FT: (1.0, 0.1), RESNET: (1.1, 0.1), CATBOOST: (0.7, 0.7), XGBOOST: (0.9, 0.9)}
    level = {FT: (0.9, 1.0), RESNET: (1.1, 0.1), CATBOOST: (1.0, 1.0), XGBOOST: (1.1, 0.1)}
    held, measured = planted(monkeypatch, {"a": level, "b": lucky})
    assert not held and measured["nets_lead"] == 0 and measured["trees_lead"] < 0


def test_a_winner_everywhere_fails_the_claim(monkeypatch):
    held, measured = planted(monkeypatch, {"a": OF_TREES, "b": OF_TREES})
    assert not held and measured["margin"] == pytest.approx(-0.3 - 0.02)


def test_the_trial_that_was_best_on_validation_rows_is_the_one_that_counts(monkeypatch):
    from papertrial.claims import _rtdl as tables

    asked, errors = [], iter([(0.5, 0.9), (0.3, 0.8), (0.4, 0.1)])

    def fitted(method, prepared, request):
        asked.append(request.settings)
        return tables.Found(*next(errors))

    monkeypatch.setattr(tables, "_fitted", fitted)
    monkeypatch.setattr(tables, "_errors", lambda outcome: outcome)
    prepared = type("P", (), {"train": type("S", (), {"examples": 10})})
    found = tables.tuned("rtdl:resnet", prepared, tables.Effort(3, 10, 2, 1), 0)
    assert found == tables.Found(0.3, 0.8)
    assert asked[0] == {"patience": 1} and {"lr", "depth", "width"} <= asked[1].keys() and asked[1] != asked[2]


@pytest.mark.slow
def test_tables_are_tuned_on_at_tiny_scale(shared_data):
    held, measured = CLAIMS["no_universal_winner"]("tiny", 0)
    assert {"ft_transformer on kin8nm", "catboost on diabetes", "nets_lead", "trees_lead"} <= measured.keys()
    assert CLAIMS["no_universal_winner"]("tiny", 0) == (held, measured)
