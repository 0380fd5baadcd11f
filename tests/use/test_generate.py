"""`generate`: texts from artifacts, as Python and as a user types it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_runs import run as small_run
from torch import nn

from papertrial.app import printing
from papertrial.app.cli import main
from papertrial.core import registry
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.files import write_json
from papertrial.core.recipe import Optim
from papertrial.nn.attention import Attention
from papertrial.nn.decode import Choice, beam, complete
from papertrial.nn.mlp import Mlp
from papertrial.nn.position import Rotary
from papertrial.nn.tokenise import Bpe, Bytes
from papertrial.nn.transformer import Decoder, EncoderDecoder, Layout
from papertrial.use.artifact import Artifact
from papertrial.use.gather import gather
from papertrial.use.generate import generate, unread, writer

WORDS = ["the cat sat on the mat, and the dog lay by the log. ", "für Öl über Äpfel und Bäume ", "日本語 😀 "] * 10


@dataclass(frozen=True)
class Config:
    kind: str = "bytes"


class Objective(nn.Module):
    """What the tasks of language models train: a model that writes, and the id that stands before every text."""

    def __init__(self, encoder, start):
        super().__init__()
        self.encoder = encoder
        if start is not None:
            self.start = start

    def loss(self, batch):
        raise NotImplementedError


def layout():
    return Layout(16, 2, lambda layer: Attention(16, 2), lambda layer: Mlp(16, 32), position=lambda: Rotary(8))


def made(kind):
    """A model with weights of its own, so that what it writes depends on what it reads."""
    torch.manual_seed(3)
    tokeniser = Bpe(300) if kind == "bpe" else Bytes()
    answers = kind == "answers"
    model = (
        EncoderDecoder(tokeniser, layout(), layout(), tied=False)
        if answers
        else Decoder(tokeniser, layout(), tied=False)
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.0 if name.startswith("embed") else 1.5 * parameter.shape[-1] ** -0.5)
    return Objective(model, None if answers else 1)


class Task:
    name, version, kind, inputs = "stand_in", 1, "text", ("ids",)

    def build(self, method, config, optim, prepared, backbone=None):
        return made(config.kind)


@pytest.fixture
def artifact(tmp_path_factory, monkeypatch):
    """Make the folder of a finished run and read it back."""
    method = SimpleNamespace(module=SimpleNamespace(Config=Config), name="stand_in_model")
    real = registry.method, registry.task
    monkeypatch.setattr(registry, "method", lambda name: method if name == method.name else real[0](name))
    monkeypatch.setattr(registry, "task", lambda name: Task() if name == Task.name else real[1](name))

    def make(kind="bytes"):
        folder = tmp_path_factory.mktemp(kind)
        model = made(kind)
        model.encoder.tokeniser.fit(WORDS)
        save_file({f"model.{name}": value for name, value in model.state_dict().items()}, folder / "model.safetensors")
        card = {
            "format": 1, "method": {"name": method.name, "title": "", "arxiv": None, "caveats": []}, "backbone": None,
            "backbone_config": None, "backbone_settings": [], "settings": [], "weights": None, "notes": [], "metrics": {},
            "intervals": {}, "licence": {}, "data": {"name": "", "fingerprint": None, "numbers": {}},
            "environment": {"date": "", "python": "", "versions": {}, "cpu": "", "cores": 1, "system": ""},
            "task": {"name": Task.name, "version": 1}, "facts": Facts("text", 1).to_json(), "state": {},
            "config": {"kind": kind}, "optim": asdict(Optim()),
        }  # fmt: skip
        write_json(folder / "card.json", card)
        return Artifact.load(folder)

    return make


# -------------------------------------------------------------------------------------------------------------- in Python


def test_a_text_goes_on_from_its_prompt(artifact):
    ours = artifact("bpe")
    model, start = ours.model.encoder, ours.model.start
    found = ours.generate(["the cat", ""], length=20, seed=7, samples=2, top_k=30)
    assert [(entry.prompt, entry.seed) for entry in found] == [("the cat", 7), ("the cat", 8), ("", 7), ("", 8)]
    ids = model.tokeniser.encode(["the cat", ""], specials=False)
    wanted = complete(model, ids, 20, Choice(1.0, 30), seeds=(7, 8), start=start)
    for entry, row in zip(found, wanted, strict=True):
        assert entry.text == model.tokeniser.decode(row)
        assert entry.ended == (row[-1] == model.tokeniser.end) and entry.tokens == len(row) - entry.ended
        assert entry.score is None
    assert len({entry.text for entry in found}) == 4
    assert ours.generate("the cat", length=20, seed=8, top_k=30)[0] == found[1]  # alone as among others


def test_an_answer_is_greedy_and_beams_are_scored(artifact):
    ours = artifact("answers")
    model = ours.model.encoder
    ids = model.tokeniser.encode(["the cat", "a dog"])  # a source has its end
    first, second = ours.generate(["the cat", "a dog"], length=9)
    assert first.seed is None and first.text != second.text
    assert first.text == model.tokeniser.decode(complete(model, ids, 9)[0])
    best = ours.generate(["the cat", "a dog"], length=9, beams=3, samples=2, length_penalty=0.5)
    wanted = [found for row in beam(model, ids, 9, 3, 0.5) for found in row[:2]]
    assert [entry.text for entry in best] == [model.tokeniser.decode(found.ids) for found in wanted]
    assert [entry.score for entry in best] == [found.score for found in wanted] and best[0].seed is None


def test_more_prompts_than_are_taken_together(artifact, monkeypatch):
    ours = artifact()
    prompts = [f"{number} " * number for number in range(5)]
    whole = generate(ours, prompts, length=5, samples=2)
    monkeypatch.setattr("papertrial.use.generate.BATCH", 2)
    heard = {}
    assert (
        generate(
            ours, prompts, length=5, samples=2, heard=lambda place, piece: heard.setdefault(place, []).append(piece)
        )
        == whole
    )
    assert sorted(heard) == list(range(10))
    assert all(
        pieces.pop() is None and "".join(pieces) == entry.text
        for pieces, entry in zip((heard[place] for place in range(10)), whole, strict=True)
    )


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_only_whole_characters_are_heard(artifact, kind):
    pieces = []
    (entry,) = artifact(kind).generate(
        "日本", length=300, temperature=2.0, heard=lambda place, piece: pieces.append(piece)
    )
    assert pieces.pop() is None and "".join(pieces) == entry.text and "\ufffd" not in entry.text
    assert "".join(pieces).encode().decode() == entry.text and any(ord(letter) > 127 for letter in entry.text)


def test_texts_that_come_side_by_side_are_printed_in_turn(capsys):
    turns = printing.InTurn(["<0>", "<1>", "<2>"])
    said = []
    for place, piece in [(1, "b"), (2, "c"), (0, "a"), (1, None), (0, "a"), (0, None), (2, "c"), (2, None)]:
        turns(place, piece)
        said.append(capsys.readouterr().out)
    assert said == ["", "", "<0>a", "", "a", "\n<1>b\n<2>c", "c", "\n"]


def test_a_terminal_is_not_controlled_by_a_model(capsys, monkeypatch):
    printing.InTurn([""])(0, "a\x1b[2J\n\té")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    printing.InTurn([""])(0, "a\x1b[2J\n\té")
    assert capsys.readouterr().out == "a\x1b[2J\n\téa\\x1b[2J\n\té"


def test_what_is_not_read_is_said(artifact):
    writes, answers = artifact(), artifact("answers")
    assert unread(writes, ["a", "b" * 500]) == []  # places that are worked out have no end
    writes.model.encoder.longest = answers.model.encoder.longest = 40
    assert unread(writes, ["a"], 20) == [] == unread(answers, ["a" * 39], 500)
    assert unread(writes, ["a"], 40) == [
        "the model reads 40 tokens: a text that has become longer goes on from its last 20 alone"
    ]
    said = "longer than the 40 tokens the model reads: it goes on from the last 20 alone"
    assert unread(writes, ["a" * 41], 5) == [f"the prompt is {said}"]
    assert unread(writes, ["a" * 41, "a"], 5) == [f"1 of 2 prompts are {said}"]
    assert unread(answers, ["a" * 40]) == ["the prompt is longer than the 40 tokens it was trained to read of one"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 2, "temperature": 0}, "the same 2 times"),
        ({"beams": 2, "samples": 3}, "2 beams cannot find 3 texts"),
        ({"beams": 2, "top_k": 5}, "beams search and draw nothing"),
        ({"beams": 2, "temperature": 0.5}, "beams search and draw nothing"),
        ({"top_p": 0}, "top_p is 0, but it takes a number above 0 and at most 1"),
        ({"length": 0}, "length is 0, but it takes a whole number from 1"),
        ({"temperature": 1e30}, "temperature is .*, but it takes a number from 0 to 100"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"beams": 2, "length_penalty": float("nan")}, "length_penalty is nan"),
        ({"seed": -1}, "seed is -1, but it takes a whole number from 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(artifact, options, message):
    with pytest.raises(PapertrialError, match=message):
        artifact().generate("a", **options)


@pytest.mark.parametrize("name", ["mlp_mixer", "barlow_twins", "majority"])
def test_an_artifact_that_writes_nothing_is_declined(name):
    with pytest.raises(Declined, match=rf"{name} in .* generates nothing: it was trained for"):
        writer(small_run(name))


_ALONE = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "papertrial":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
from safetensors.torch import load_file
from written import Bpe
tokeniser = Bpe(300)
tokeniser.load_state_dict(load_file(sys.argv[1] + "/state.safetensors"))
ids = tokeniser.encode([sys.argv[2]])[0]
assert tokeniser.decode(ids) == sys.argv[2]
print(ids.tolist())
"""


def test_a_tokeniser_works_where_papertrial_is_not(tmp_path):
    """Its source, as `eject` gathers it, and its state."""
    imports, definitions = gather(
        [("papertrial.nn.tokenise", "Bpe"), ("papertrial.nn.transformer", "Decoder")], ["papertrial"], {}
    )
    (tmp_path / "written.py").write_text(f"from __future__ import annotations\n\n{imports}\n\n{definitions}\n")
    tokeniser = Bpe(300).fit(WORDS)
    save_file(tokeniser.state_dict(), tmp_path / "state.safetensors")
    done = subprocess.run(
        [sys.executable, "-I", "-c", _ALONE, tmp_path, "the cat 日本"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == tokeniser.encode(["the cat 日本"])[0].tolist()


# ------------------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def papertrial(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["papertrial", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return stop.value.code or 0, out.out, out.err

    return run


def test_a_prompt_is_printed_with_what_follows(papertrial, artifact):
    ours = artifact()
    (entry,) = ours.generate("To be", length=30, seed=5)
    code, out, err = papertrial("generate", ours.folder, "To be", "--length", 30, "--seed", 5)
    assert (code, err) == (0, "") and out == f"To be{entry.text}\n"
    with open("prompt.txt", "w", newline="") as file:
        file.write("To be\r\n")
    for words, stdin in ((["--file", "prompt.txt"], b""), (["--stdin"], b"To be\n")):
        assert papertrial("generate", ours.folder, *words, "-l", 30, "--seed", 5, stdin=stdin)[1] == out
    assert papertrial("generate", ours.folder, "-l", 30)[1] == ours.generate("", length=30)[0].text + "\n"


def test_several_texts_are_told_apart(papertrial, artifact):
    ours = artifact("bpe")
    texts = ours.generate(["ab", "cd"], length=8, samples=2, temperature=0.8, top_k=9, top_p=0.9)
    words = ["generate", ours.folder, "ab", "cd", "-n", 2, "-l", 8, "-t", 0.8, "--top-k", 9, "--top-p", 0.9]
    code, out, err = papertrial(*words)
    assert (code, err) == (0, "")
    assert out == "".join(f"--- {place} of 4\n{entry.prompt}{entry.text}\n" for place, entry in enumerate(texts, 1))
    code, out, err = papertrial(*words, "--json")
    assert json.loads(out) == {
        "folder": str(ours.folder),
        "method": "stand_in_model",
        "texts": [asdict(entry) for entry in texts],
        "notes": [],
    }


def test_answers_are_printed_without_their_source(papertrial, artifact):
    ours = artifact("answers")
    best = ours.generate("the cat", length=8, beams=2, samples=2)
    code, out, err = papertrial("generate", ours.folder, "the cat", "-l", 8, "--beams", 2, "-n", 2)
    assert (code, err) == (0, "")
    assert out == "".join(f"--- {place} of 2\n{entry.text}\n" for place, entry in enumerate(best, 1))


def test_an_interrupt_is_said_and_is_no_defect(papertrial, artifact, monkeypatch):
    def stopped(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("papertrial.use.generate.generate", stopped)
    assert papertrial("generate", artifact().folder, "a") == (130, "\n", "papertrial: stopped\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "a", "--stdin"], "give one of the three"),
        (["RUN", "--file", "nowhere.txt"], "nowhere.txt is not readable UTF-8 text"),
        (["RUN", "--stdin"], "standard input is not readable UTF-8 text"),
        (["RUN", "a", "-n", "2", "-t", "0"], "the same 2 times"),
        (["RUN", "a", "--top-p", "0"], "--top-p is 0, but it takes a number above 0"),
        (["RUN", "a", "--length", "0"], "--length is 0, but it takes a whole number from 1"),
        (["nowhere", "a"], "holds no trained model"),
        (["IMAGES", "a"], "mlp_mixer in .* generates nothing: it was trained for image_classification"),
    ],
)
def test_what_cannot_be_is_one_line(papertrial, artifact, words, message):
    folders = {"RUN": str(artifact().folder) if "RUN" in words else "", "IMAGES": str(small_run("mlp_mixer").folder)}
    code, out, err = papertrial("generate", *(folders.get(word, word) for word in words), stdin=b"\xff\xfe")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and err.startswith("papertrial: "), err
    assert re.search(message, err), err
    assert not os.listdir()


def test_a_model_that_diverged_says_so(papertrial, artifact):
    ours = artifact()
    state = {f"model.{name}": value for name, value in ours.model.state_dict().items()}
    state["model.encoder.head.weight"] = torch.full_like(state["model.encoder.head.weight"], np.nan)
    save_file(state, ours.folder / "model.safetensors")
    code, _, err = papertrial("generate", ours.folder, "a")
    assert code == 2 and "may have diverged" in err
