"""Distillation of experts into a dense model: the loss written out, what a student starts from, and whole commands."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from papertrial.baselines import text_transformer
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.nn.heads import NextToken, Supervised
from papertrial.papers import switch
from papertrial.papers.switch import SwitchMlp, distil

FACTS = Facts("text", 0)
SMALL = switch.Config(width=16, depth=2, heads=2, hidden=24, longest=12, experts=3, eval_capacity=0.0)
SENTENCES = [
    f"the {a} {b} and {c}" for a in ("cat", "dog", "hen") for b in ("sat", "ran") for c in ("slept", "ate", "hid")
]


def model(causal=True, seed=0, classes=4, **settings):
    torch.manual_seed(seed)
    encoder = switch.build(replace(SMALL, causal=causal, **settings), FACTS)
    made = NextToken(encoder) if causal else Supervised(encoder, classes, inputs=("ids",))
    made = made.double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return made


def batch(rows=4):
    ids = torch.randint(3, 259, (rows, 12))
    ids[0, 5:] = 0  # padded
    ids[1, :] = 7  # constant
    return {"ids": ids, "label": torch.arange(rows) % 4}


def written_out(teacher, student, batch, soft, scale=1.0):
    """The cross-entropy of one target, a mixture of the label and the teacher's probabilities, token by token."""
    total, count = 0.0, 0
    if isinstance(student, NextToken):
        for row in batch["ids"]:
            length = int(row.ne(0).nonzero().max()) + 1
            given = torch.cat([torch.tensor([1]), row[: length - 1]])[None]
            ours, theirs = (each.encoder.logits(given)[0] for each in (student, teacher))
            for place in range(length):
                target = (1 - soft) * torch.eye(259, dtype=torch.float64)[row[place]]
                target = target + soft * theirs[place].detach().exp() / theirs[place].detach().exp().sum()
                total = total - (target * (ours[place] - ours[place].exp().sum().log())).sum()
                count += 1
        return total / count
    for row, label in zip(batch["ids"], batch["label"], strict=True):
        row = row[row.ne(0)][None]  # a row alone, without padding
        ours, theirs = (each.head(each.encoder(row))[0] for each in (student, teacher))
        target = soft * theirs.detach().exp() / theirs.detach().exp().sum()
        target = target + (1 - soft) * torch.eye(len(ours), dtype=torch.float64)[label]
        total = total - (target * (ours - ours.exp().sum().log())).sum()
    return total / len(batch["ids"])


@pytest.mark.parametrize("soft", [0.25, 0.0, 1.0])
@pytest.mark.parametrize("causal", [True, False])
def test_the_loss_is_the_cross_entropy_of_the_mixture_in_values_and_gradients(causal, soft):
    teacher, student = model(causal).eval(), model(causal, seed=1, experts=1)
    given = batch()
    ours = distil.distilled(teacher, student, given, soft)
    plain = written_out(teacher, student, given, soft)
    added = ours["balance_loss"].detach()  # of one expert it is alpha, whatever the weights are
    torch.testing.assert_close(ours["loss"] - added, plain, rtol=1e-9, atol=0)
    weights = [weight for name, weight in student.named_parameters() if "router" not in name]
    found, wanted = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (ours["loss"], plain))
    assert all((a is None) == (b is None) for a, b in zip(found, wanted, strict=True))
    for a, b in zip(found, wanted, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_nothing_flows_into_the_teacher_and_it_drops_nothing():
    teacher, student = model(dropout=0.5).eval(), model(seed=1, experts=1)
    given = batch()
    losses = [distil.distilled(teacher, student, given, 0.25) for _ in range(2)]
    assert torch.equal(losses[0]["teacher_loss"], losses[1]["teacher_loss"])
    losses[0]["loss"].backward()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_the_student_starts_from_all_weights_but_those_of_experts_and_routers():
    teacher, student = model(), model(seed=1, experts=1)
    before = {name: weight.clone() for name, weight in student.named_parameters()}
    taken = distil.start_from(teacher, student)
    apart = [name for name, module in student.named_modules() if isinstance(module, SwitchMlp)]
    assert apart == ["encoder.stack.blocks.1.mlp"]
    for name, weight in student.named_parameters():
        expert = name.startswith(f"{apart[0]}.")
        assert (name not in taken) == expert
        assert torch.equal(weight, before[name] if expert else dict(teacher.named_parameters())[name])


def test_a_student_with_as_many_experts_keeps_its_own():
    teacher, student = model(), model(seed=1)
    assert not any("experts" in name or "router" in name for name in distil.start_from(teacher, student))


def test_the_dense_transformer_can_be_the_student():
    student = NextToken(
        text_transformer.build(
            text_transformer.Config(width=16, depth=2, heads=2, hidden=24, longest=12, causal=True), FACTS
        )
    ).double()
    taken = distil.start_from(model(), student)
    assert "encoder.embed.table.weight" in taken and "encoder.stack.blocks.0.mlp.up.weight" in taken
    assert not any(name.startswith("encoder.stack.blocks.1.mlp.") for name in taken)


@pytest.fixture
def texts(tmp_path):
    """`prose.txt`, and `kinds.csv` of two classes, in the folder that commands run in."""
    rng = np.random.default_rng(0)
    lines = [SENTENCES[place] for place in rng.integers(0, len(SENTENCES), 300)]
    (tmp_path / "prose.txt").write_text("\n".join(lines))
    rows = [f'"{line} {number}",{"cat" if "cat" in line else "other"}' for number, line in enumerate(lines[:80])]
    (tmp_path / "kinds.csv").write_text("\n".join(["text,label", *rows]))
    return tmp_path


FIT = ("--recipe", "tiny", "--budget", "4steps", "-q")


def test_a_run_of_experts_becomes_a_dense_model(papertrial, texts):
    words = ("fit", "switch", "--data", "prose.txt", "--task", "language_modeling", *FIT)
    assert papertrial(*words, "--out", "sparse")[0] == 0
    dense = (*words, "--set", "experts=1")
    assert papertrial(*dense, "--technique", "distil:teacher=sparse", "--out", "dense")[0] == 0
    card = json.loads((texts / "dense" / "card.json").read_text())
    assert card["techniques"] == {"distil": {"teacher": "sparse", "soft": 0.25, "start": True}}
    assert "distilled from sparse, with 0.25 of the loss from its probabilities" in card["notes"]
    sources = {row["name"]: row["source"] for row in card["settings"]}
    assert sources["distil.soft"].startswith("sec. 4.2") and sources["distil.teacher"] == "you"
    assert "teacher_loss" in (texts / "dense" / "metrics.jsonl").read_text()
    code, out, _ = papertrial("evaluate", "dense", "prose.txt")  # without the teacher's help
    assert code == 0 and "bits_per_byte" in out
    # neither a start nor a teacher: the training is the plain one, bit for bit
    for name, more in (("plain", ()), ("off", ("--technique", "distil:teacher=sparse,soft=0,start=false"))):
        assert papertrial(*dense, *more, "--out", name)[0] == 0
    held = [load_file(texts / name / "model.safetensors") for name in ("plain", "off", "dense")]
    assert all(torch.equal(held[0][name], held[1][name]) for name in held[0])
    assert any(not torch.equal(held[0][name], held[2][name]) for name in held[0])


def test_a_classifier_is_a_teacher_too_and_what_does_not_fit_is_refused(papertrial, texts):
    words = ("fit", "switch", "--task", "text_classification", *FIT, "--data", "kinds.csv")
    assert papertrial(*words, "--out", "sparse")[0] == 0
    taught = ("--technique", "distil:teacher=sparse", "--set", "experts=1")
    assert papertrial(*words, *taught, "--out", "dense")[0] == 0
    (texts / "three.csv").write_text((texts / "kinds.csv").read_text().replace(",other", ",hen", 20))

    def refused(*more):
        code, _, err = papertrial("fit", "switch", *FIT, "--out", "refused", *more)
        assert code == 2 and "Traceback" not in err
        assert not (texts / "refused").exists()
        return err

    kinds = ("--task", "text_classification", "--data", "kinds.csv")
    assert "3 classes, and sparse has 2" in refused("--task", "text_classification", "--data", "three.csv", *taught)
    assert "another task" in refused("--task", "language_modeling", "--data", "prose.txt", *taught)
    assert "other tokens" in refused(*kinds, *taught, "--set", "tokeniser=bpe", "--set", "vocabulary=300")
    assert "--set longest=64" in refused(*kinds, *taught, "--set", "longest=99")
    assert papertrial("fit", "text_transformer", *FIT, *kinds, "--out", "dense_teacher")[0] == 0
    assert "no experts" in refused(*kinds, "--technique", "distil:teacher=dense_teacher")
    (texts / "sparse" / "model.safetensors").write_bytes(b"damaged")
    assert "cannot be read" in refused(*kinds, *taught)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distil", "has no teacher"),
        ("distil:teacher=here,soft=1.5", "soft is 1.5"),
        ("distil:teacher=here,sof=1", "no setting 'sof'; did you mean 'soft'"),
    ],
)
def test_settings_that_cannot_be_are_refused(text, words):
    from papertrial.core import registry

    with pytest.raises(PapertrialError, match=words):
        registry.technique(text)


def test_a_teacher_without_probabilities_is_declined(tmp_path):
    card = {"method": {"name": "switch"}, "task": {"name": "sentence_similarity"}, "config": {}, "facts": {}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(Declined, match="no probabilities"):
        distil.teacher_of(tmp_path)
    with pytest.raises(PapertrialError, match="holds no trained model"):
        distil.teacher_of(tmp_path / "nowhere")
