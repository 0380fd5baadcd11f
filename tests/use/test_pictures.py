"""`generate` with generators of pictures, as Python and as a user types it; what else their artifacts do and decline."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import folder as scratch
from torch import nn

import papertrial as pt
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.ours import visible
from papertrial.data.images import Images
from papertrial.tasks import _image_quality
from papertrial.tasks.image_generation import TASK
from papertrial.use import pictures
from papertrial.use.artifact import Artifact
from papertrial.use.pictures import Bar, generate, save


class Painter(nn.Module):
    """Noise of the seed through a layer; everything that is asked for leaves a mark."""

    draws = frozenset({"labels", "captions", "guidance", "steps", "start"})

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(48, 48, bias=False)
        self.calls = []

    def draw(
        self, seeds, *, labels=None, captions=None, guidance=None, steps=None, start=None, strength=None, progress=None
    ):
        assert not self.training and not torch.is_grad_enabled()
        self.calls.append(list(seeds))
        noise = torch.stack([torch.randn(48, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        out = torch.sigmoid(self.layer(noise)).view(-1, 3, 4, 4)
        if labels is not None:
            out[:, 0, 0, 0] = labels / 10
        if captions is not None:
            out[:, 0, 0, 1] = torch.tensor([len(text) / 100 for text in captions])
        if guidance is not None:
            out[:, 0, 0, 2] = guidance / 10
        if start is not None:
            out[:, 1] = start[:, 1] / 255
            out[:, 2] = strength or 0.5
        if progress is not None:
            progress(0.5)
            progress(1.0)
        return (255 * out).round().to(torch.uint8)


def artifact(draws=None):
    model = Painter().eval()
    with torch.no_grad():
        model.layer.weight.copy_(torch.randn(48, 48, generator=torch.Generator().manual_seed(0)))
    if draws is not None:
        model.draws = frozenset(draws)
    state = {"class_names": ["cat", "tall dog", "all, or none"], "height": 4, "width": 4, "channels": 3, "bytes": True}
    return Artifact(Path("run"), {"method": {"name": "painter"}, "state": state}, TASK, model, {})


@cache
def run():
    """A GAN after a few steps on small digits, and its artifact."""
    _image_quality.STEPS, steps = 30, _image_quality.STEPS
    try:
        return pt.fit("gan", "digits", recipe="tiny", budget="3steps", out=scratch() / "gan", progress=False)
    finally:
        _image_quality.STEPS = steps


def test_a_picture_depends_on_its_seed_alone():
    ours = artifact()
    many = generate(ours, samples=11, seed=3)
    assert [picture.seed for picture in many] == list(range(3, 14))
    assert all(picture.pixels.shape == (4, 4, 3) and picture.pixels.dtype == np.uint8 for picture in many)
    for place in (0, 4, 10):
        (alone,) = generate(ours, samples=1, seed=3 + place)
        assert np.array_equal(alone.pixels, many[place].pixels)
    assert {len(call) for call in ours.model.calls} == {pictures.TOGETHER}
    trained = run()
    many = trained.generate(samples=9, labels=["3", "7"])
    (alone,) = trained.generate(samples=1, labels="7", seed=8)
    assert np.array_equal(alone.pixels, many[17].pixels) and many[17].label == "7"


def test_classes_captions_and_settings_reach_the_model():
    ours = artifact()
    made = generate(ours, samples=2, labels=["tall dog", "cat"], guidance=5)
    assert [(picture.label, picture.seed) for picture in made] == [
        ("tall dog", 0),
        ("tall dog", 1),
        ("cat", 0),
        ("cat", 1),
    ]
    assert [picture.pixels[0, 0, 0] for picture in made] == [26, 26, 0, 0]
    assert {int(picture.pixels[0, 2, 0]) for picture in made} == {128}
    assert [picture.label for picture in generate(ours, samples=1, labels="all")] == ["cat", "tall dog", "all, or none"]
    captioned = ours.generate(["a hat", "two long hats"], samples=1)
    assert [(picture.caption, picture.pixels[0, 1, 0]) for picture in captioned] == [
        ("a hat", 13),
        ("two long hats", 33),
    ]
    begin = np.random.default_rng(0).integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)
    made = generate(ours, samples=3, start=Images.from_arrays(begin), strength=0.2)
    assert len({picture.pixels[..., 1].tobytes() for picture in made}) == 1 and made[0].pixels[0, 0, 2] == 51


def test_progress_goes_up_to_all():
    heard = []
    generate(artifact(), samples=6, heard=heard.append)
    assert heard == sorted(heard) and heard[0] == pytest.approx(1 / 3) and heard[-1] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": "dog"}, "there is no class 'dog'; did you mean 'tall dog'"),
        ({"labels": "cat", "captions": ["a"]}, "of a class or from a caption"),
        ({"samples": 0}, "samples is 0, but it takes a whole number from 1"),
        ({"seed": -1}, "seed is -1, but it takes"),
        ({"guidance": float("nan")}, "guidance is nan, but it takes a number from 0"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"strength": 0.5}, "goes with an image to start from"),
        ({"start": "digits", "strength": 0.0}, "strength is 0, but it takes a number above 0"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(PapertrialError, match=said):
        generate(artifact(), **options)


def test_more_pictures_than_memory_holds_are_refused_before_one_is_drawn(monkeypatch):
    monkeypatch.setattr("papertrial.core.memory.free_memory", lambda device: 10**8)
    with pytest.raises(PapertrialError, match=r"1,000,000 pictures would take about 1.12 GB .* fewer --samples"):
        generate(artifact(), samples=10**6)


@pytest.mark.parametrize(
    ("draws", "options", "said"),
    [
        ((), {"labels": "cat"}, "takes no label; it takes a --seed and nothing else"),
        (("labels",), {"guidance": 2.0}, "takes no guidance; it takes --label and --seed"),
        (("captions", "labels"), {"steps": 9}, "takes no steps; it takes --caption, --label and --seed"),
        (("steps",), {"strength": 0.5}, "takes no strength"),
        (("steps",), {"start": "digits"}, "takes no start"),
    ],
)
def test_options_that_a_model_does_not_take(draws, options, said):
    with pytest.raises(Declined, match=said):
        generate(artifact(draws), **options)


def test_a_folder_of_pictures(tmp_path):
    made = save(artifact(), tmp_path / "out", samples=3, labels=["cat", "tall dog"], guidance=2.0)
    names = ["cat-00000", "cat-00001", "cat-00002", "tall-dog-00000", "tall-dog-00001", "tall-dog-00002"]
    assert visible(tmp_path / "out") == sorted([f"{name}.png" for name in names] + ["grid.png", "pictures.jsonl"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "pictures.jsonl").read_text().splitlines()]
    assert lines == made["pictures"]
    assert lines[4] == {"file": "tall-dog-00001.png", "seed": 1, "label": "tall dog", "caption": None, "guidance": 2.0}
    with Image.open(made["grid"]) as image:
        assert image.size == (3 * 65 + 1, 2 * 65 + 1)  # a row for each class, a square for each of the 4 x 4 pixels
        cell = np.asarray(image)[66:130, 131:195]
    with Image.open(tmp_path / "out" / "tall-dog-00002.png") as image:
        assert np.array_equal(cell[8::16, 8::16], np.asarray(image)) and np.array_equal(cell[7::16], cell[9::16])
    held = (tmp_path / "out" / "cat-00002.png").read_bytes()
    with pytest.raises(
        PapertrialError, match="out holds 6 pictures of an earlier call; choose another --out, or add --rep"
    ):
        save(artifact(), tmp_path / "out", samples=1)
    save(artifact(), tmp_path / "out", replace=True, samples=1, seed=2, labels="cat", guidance=2.0)
    assert visible(tmp_path / "out") == ["cat-00002.png", "grid.png", "pictures.jsonl"]
    assert (tmp_path / "out" / "cat-00002.png").read_bytes() == held
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_of_others_is_replaced_and_nothing_half_written(tmp_path, monkeypatch):
    save(artifact(), tmp_path / "out", samples=1)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(PapertrialError, match="holds other things"):
        save(artifact(), tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    for inside in ("", "deep/er"):
        with pytest.raises(PapertrialError, match="file is a file"):
            save(artifact(), tmp_path / "file" / inside)

    def full(*what):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(pictures, "write_text", full)
    with pytest.raises(PapertrialError, match="no space left"):
        save(artifact(), tmp_path / "new", samples=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_only_what_a_marker_or_an_earlier_version_lists_is_replaced(tmp_path):
    """Photographs beside a list of them, which looks like ours, are no pictures of an earlier call; a file put among ours stays."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("grid.png", "a.png", "b.png"):
        (photos / name).write_text("precious")
    (photos / "pictures.jsonl").write_text('{"file": "a.png", "label": "cat"}\n{"file": "b.png", "label": "dog"}\n')
    (tmp_path / "link").symlink_to(photos)
    for out in (photos, tmp_path / "link"):
        for replace in (False, True):
            with pytest.raises(PapertrialError, match="not empty and not a folder of drawn pictures"):
                save(artifact(), out, replace=replace, samples=1)
    assert sorted(path.name for path in photos.iterdir()) == ["a.png", "b.png", "grid.png", "pictures.jsonl"]
    save(artifact(), tmp_path / "out", samples=1)
    (tmp_path / "out" / ".hidden").write_text("precious")
    with pytest.raises(PapertrialError, match=r"holds other things \(\.hidden\)"):
        save(artifact(), tmp_path / "out", samples=1, replace=True)
    (tmp_path / "out" / ".hidden").unlink()
    (tmp_path / "out" / ".papertrial.json").unlink()  # as before there were markers
    with pytest.raises(PapertrialError, match="holds 1 picture of an earlier call"):
        save(artifact(), tmp_path / "out", samples=1)
    save(artifact(), tmp_path / "out", samples=1, seed=7, replace=True)
    assert visible(tmp_path / "out") == ["00007.png", "grid.png", "pictures.jsonl"]


def test_a_second_call_leaves_the_pictures_of_the_first(tmp_path):
    ours = artifact()
    ours.folder = tmp_path
    places = [save(ours, samples=1, seed=seed)["folder"].name for seed in range(3)]
    assert places == ["pictures", "pictures-2", "pictures-3"]
    assert [(tmp_path / place / f"0000{seed}.png").exists() for seed, place in enumerate(places)] == [True] * 3


def test_what_is_hardly_a_picture_is_said(tmp_path, monkeypatch):
    ours = artifact()
    assert save(ours, tmp_path / "a", samples=3, guidance=3.0)["notes"] == []
    with torch.no_grad():
        ours.model.layer.weight.mul_(1000)
    harsh = save(ours, tmp_path / "b", samples=3, guidance=10.0)["notes"]
    assert harsh == ["3 of 3 pictures with hardly a pixel between black and white: a guidance of 10 may be too strong"]
    assert save(ours, tmp_path / "c", samples=3)["notes"] == []  # black and white may be what was learnt
    monkeypatch.setattr(
        Painter, "draw", lambda self, seeds, **more: torch.zeros(len(seeds), 3, 4, 4, dtype=torch.uint8)
    )
    assert save(ours, tmp_path / "d", samples=2)["notes"] == ["2 of 2 pictures of one colour all over"]
    assert save(ours, tmp_path / "e", samples=2, guidance=9.0)["notes"][0].endswith("guidance of 9 may be too strong")


def test_captions_that_are_cut_are_said(tmp_path):
    ours = artifact()
    ours.model.too_long = lambda texts: (texts.lengths > 5, "5 bytes")
    notes = save(ours, tmp_path / "a", captions=["a long caption", "short"], samples=1)["notes"]
    assert notes == ["1 of 2 captions are longer than the 5 bytes that are read of one: the rest is cut off"]
    assert save(ours, tmp_path / "b", captions=["short"], samples=1)["notes"] == []


def test_as_a_user_types_it(papertrial, tmp_path):
    run_folder = run().folder
    code, out, err = papertrial("generate", run_folder, "--label", "3,7", "-n", 2, "--seed", 5, "--out", "drawn")
    *floors, last = out.splitlines()
    assert (code, err, last) == (0, "", "4 pictures in drawn, all of them in drawn/grid.png")
    assert floors and all(line.startswith("By frechet, ") for line in floors)
    code, out, _ = papertrial(
        "generate", run_folder, "--label", "3", "--samples", 3, "--seed", 4, "-o", "more", "--json"
    )
    assert code == 0 and [line["seed"] for line in json.loads(out)["pictures"]] == [4, 5, 6]
    assert (tmp_path / "drawn/3-00005.png").read_bytes() == (tmp_path / "more/3-00005.png").read_bytes()
    with Image.open(tmp_path / "drawn/7-00006.png") as image:
        assert image.size == (8, 8) and image.mode == "L"
    for words, said in (
        (("--guidance", 2), "gan takes no guidance; it takes --label and --seed"),
        (("--length", 9), "gan draws pictures and takes no --length"),
        (("--top-k", 9), "takes no --top-k"),
        (("a caption",), "takes no caption"),
        (("--label", "ten"), "there is no class 'ten'"),
    ):
        code, out, err = papertrial("generate", run_folder, *words)
        assert code == 2 and out == "" and said in err and err.count("\n") == 1


def test_what_else_a_generator_does_and_declines(papertrial, monkeypatch, tmp_path):
    folder = run().folder
    monkeypatch.setattr(_image_quality, "_HELD", {})
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path / "another machine"))
    code, out, _ = papertrial("evaluate", folder, "digits", "--json")
    judged = json.loads(out)
    assert code == 0 and judged["examples"] == 1797 and {"frechet", "class_accuracy"} <= set(judged["metrics"])
    for words, said in (
        (("predict", folder, "digits"), "no answer for each example; type: papertrial generate"),
        (("embed", folder, "digits"), "no features"),
        (("export", folder, "--to", "onnx"), "draws pictures from a seed"),
        (("eject", folder, "--out", "e"), "draws pictures from a seed"),
        (("evaluate", folder, "wine"), "trained on images"),
    ):
        code, _, err = papertrial(*words)
        assert code == 2 and said in err and err.count("\n") == 1, err
    code, _, _ = papertrial("report", folder)
    page = (folder / "report.html").read_text()
    assert code == 0 and page.count('class="sheet"') == 2 and "Drawn pictures" in page


def test_texts_take_no_options_of_pictures(papertrial):
    pt.fit(
        "text_transformer", "python-docs", task="language_modeling", recipe="tiny", budget="1steps",
        out=scratch() / "writes", progress=False,
    )  # fmt: skip
    for words in (("--label", "cat"), ("--out", "x"), ("--guidance", 2)):
        code, _, err = papertrial("generate", scratch() / "writes", "To be", *words)
        assert code == 2 and f"writes texts and takes no {words[0]}" in err
    assert papertrial("generate", scratch() / "writes", "To be", "-l", 5)[0] == 0


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 40.0, 41.0, 90.0])
    monkeypatch.setattr(pictures, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with Bar() as heard:
        for share in (0.01, 0.25, 0.3, 0.5):
            heard(share)
    assert capsys.readouterr().err == "drawing: 25%, 2 min left\ndrawing: 50%, 1 min 30 s left\n"
