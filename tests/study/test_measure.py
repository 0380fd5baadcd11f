"""Measuring anything: runs, methods with fresh weights, Hugging Face folders, a user's own factory, and what is refused."""

from __future__ import annotations

import json
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import papertrial as pt
from papertrial.app.cli import main
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.paper import Curve, Figure, Report
from papertrial.study.measure import measure
from papertrial.study.plot import draw, page

MINE = """
import torch
from torch import nn

def encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32), 3, enable_nested_tensor=False)

def with_inputs():
    return encoder(), {"src": torch.randn(9, 4, 16)}

class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 2, 2)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.inner = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, image):
        return self.inner(self.patches(image).flatten(2).transpose(1, 2)).mean(1)

words = nn.Sequential(nn.Embedding(20, 16), encoder())
nothing = 3

def number():
    return 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with a module `mine_to_measure` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_to_measure.py").write_text(MINE)
    yield tmp_path
    sys.modules.pop("mine_to_measure", None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "vit"
    pt.fit("vit", data="digits", recipe="tiny", out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Folders of Hugging Face models made here: a config alone, one with weights, one with a tokenizer, a picture model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("transformers", reason="needs the extra text")
        from tokenizers import Tokenizer, models, pre_tokenizers

        folder = tmp_path_factory.mktemp("hub")
        size = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
        config = library.BertConfig(vocab_size=40, **size)
        config.save_pretrained(folder / "config")
        torch.manual_seed(0)
        library.BertModel(config).save_pretrained(folder / "trained")
        words = {"[UNK]": 0, **{word: index for index, word in enumerate(["the", "cat", "sat", "on", "a", "mat"], 1)}}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(
            folder / "trained"
        )
        library.ViTConfig(image_size=16, patch_size=4, num_channels=1, **size).save_pretrained(folder / "pictures")
        size = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 3, "num_heads": 2, "vocab_size": 40}
        library.T5Config(**size).save_pretrained(folder / "pairs")
    return folder


def tiny(what, data=None, **options):
    return measure("rank_collapse", what, data, recipe="tiny", examples=4, tokens=12, **options)


# what can be measured


def test_a_run_is_measured_on_the_data_it_was_trained_on(run):
    report = tiny(run)
    assert report.numbers["attention_layers"] == 2
    assert dict(report.facts)["inputs"] == "4 examples of digits"
    assert report.files == (str(run / "rank_collapse" / "report.json"), str(run / "rank_collapse" / "plot.html"))
    kept = json.loads((run / "rank_collapse" / "report.json").read_text())
    assert kept["verdict"] == report.verdict and kept["numbers"]["residual"] == report.numbers["residual"]
    assert pt.load(run).predict("digits")["prediction"].size, "the run is still one"


def test_a_run_on_other_data_of_the_same_kind(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "noise.npy", pixels)
    report = tiny(run, tmp_path / "noise.npy", out=tmp_path / "out")
    assert dict(report.facts)["inputs"] == "4 examples of noise.npy"
    assert report.numbers["residual"] != tiny(run, out=tmp_path / "out").numbers["residual"]


def test_trained_weights_are_the_ones_measured(run, here):
    assert tiny(run).numbers["residual"] != tiny("vit", "digits").numbers["residual"]


@pytest.mark.parametrize(
    ("name", "data", "maps"), [("vit", "digits", 4), ("mlp_mixer", "digits", 0), ("rtdl:ft_transformer", "wine", 2)]
)
def test_a_method_with_fresh_weights(name, data, maps, here):
    report = tiny(name, data)
    assert report.numbers["attention_layers"] == maps
    assert (here / "runs" / f"rank_collapse-{name.replace(':', '-')}" / "plot.html").exists()
    assert tiny(name, data) == report, "a seed is a seed"
    assert tiny(name, data, seed=1).numbers["residual"] != report.numbers["residual"]


def test_an_objective_is_measured_by_its_backbone(here):
    pt.fit("barlow_twins", data="digits", backbone="vit", recipe="tiny", budget="2steps", out="twins", progress=False)
    assert tiny("twins").numbers["attention_layers"] == 4


def test_a_hugging_face_config_and_weights(hub, here):
    fresh, again = tiny(f"hf:{hub}/config"), tiny(f"hf:{hub}/config/config.json")
    assert fresh.numbers == again.numbers
    assert "with fresh weights" in dict(fresh.facts)["model"] and "random tokens" in dict(fresh.facts)["inputs"]
    assert fresh.numbers["outcome"] == "holds"
    trained = tiny(f"hf:{hub}/trained")
    assert "fresh" not in dict(trained.facts)["model"]
    assert trained.numbers["attention_layers"] == 3


def test_a_language_model_on_a_text(hub, here):
    (here / "text.txt").write_text("the cat sat on a mat and so on " * 10)
    report = tiny(f"hf:{hub}/trained", "text.txt")
    assert dict(report.facts)["inputs"] == "4 rows of 12 tokens of text.txt"
    (here / "short.txt").write_text("the cat")
    with pytest.raises(DataError, match="has 2 tokens, fewer than one row of 12"):
        tiny(f"hf:{hub}/trained", "short.txt")
    with pytest.raises(PapertrialError, match="no tokenizer"):
        tiny(f"hf:{hub}/config", "text.txt")
    with pytest.raises(DataError, match="cannot be read as text"):
        tiny(f"hf:{hub}/trained", "nowhere.txt")


def test_a_hugging_face_picture_model(hub, here):
    noise, images = tiny(f"hf:{hub}/pictures"), tiny(f"hf:{hub}/pictures", "digits")
    assert noise.numbers["tokens"] == images.numbers["tokens"] == 17
    assert "noise" in dict(noise.facts)["inputs"] and "digits" in dict(images.facts)["inputs"]


def test_the_encoder_of_a_pair(hub, here):
    report = tiny(f"hf:{hub}/pairs")
    assert report.numbers["attention_layers"] == 3 and report.numbers["floor"] > 1e-7


def test_a_factory_of_ones_own(here):
    assert tiny("mine_to_measure:encoder").numbers["attention_layers"] == 3
    given = tiny("mine_to_measure:with_inputs")
    assert given.numbers["tokens"] == 9 and given.numbers["examples"] == 4
    assert tiny("mine_to_measure:Pictures", "digits").numbers["tokens"] == 16
    assert tiny("mine_to_measure:words").numbers["attention_layers"] == 3
    assert (here / "runs" / "rank_collapse-mine_to_measure-encoder" / "report.json").exists()
    assert "" not in sys.path[:1]


def test_a_module_in_python_writes_nothing_unless_asked(here):
    torch.manual_seed(0)
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
    )
    model.layers[0].dropout.eval()
    x = torch.randn(3, 7, 16)
    reports = [pt.measure("rank_collapse", model, data) for data in (x, (x,), {"src": x})]
    assert reports[0] == reports[1] == reports[2]
    assert not reports[0].files and not (here / "runs").exists()
    assert model.training and not model.layers[0].dropout.training, "modes stay as they were"
    assert pt.measure("rank_collapse", model, x, out="kept").files
    assert (here / "kept" / "plot.html").exists()
    assert pt.measure("rank_collapse", model).numbers["tokens"] == 32


# what is refused


@pytest.mark.parametrize(
    ("what", "data", "message"),
    [
        ("vut", None, "did you mean 'vit'"),
        ("vit", None, "add --data"),
        ("resnet", "digits", "no layers were found"),
        ("linear", "wine", "not a neural network"),
        ("rank_collapse", "digits", "it measures models"),
        ("vit", "wine", "does not fit"),
        ("mlp_mixer:S", "digits", "no variant 'S'"),
        ("mine_to_measure:number", None, "gave a int"),
        ("mine_to_measure:nothing", None, "cannot be imported or called"),
        ("mine_to_measure:encodr", None, "cannot be imported"),
        ("no_such_module:thing", None, "cannot be imported"),
        ("mine_to_measure:encoder", "digits", "cannot be called with 4 images of digits"),
        ("mine_to_measure:Pictures", None, "does not say what it takes"),
        ("mine_to_measure:Pictures", "wine", "give tensors"),
        ("hf:nowhere", None, "hub cannot be reached|no folder and no public model"),
        ("empty", None, "no trained model"),
    ],
)
def test_refused_in_one_line(what, data, message, here):
    (here / "empty").mkdir()
    with pytest.raises(PapertrialError, match=message):
        tiny(what, data)
    assert not (here / "runs").exists()


def test_refused_analyses_and_settings(here):
    with pytest.raises(PapertrialError, match="vit is of the kind architecture, not an analysis; known: rank_collapse"):
        measure("vit", "vit", "digits")
    with pytest.raises(PapertrialError, match="did you mean 'rank_collapse'"):
        measure("rank_colapse", "vit", "digits")
    with pytest.raises(PapertrialError, match="did you mean 'paths'"):
        tiny("vit", "digits", settings={"path": 3})
    with pytest.raises(PapertrialError, match="no recipe"):
        measure("rank_collapse", "vit", "digits", recipe="huge")


def test_damaged_and_pickled_hugging_face_folders(hub, here):
    (here / "damaged").mkdir()
    (here / "damaged" / "config.json").write_text("{")
    with pytest.raises(PapertrialError, match="cannot be read as a model of transformers"):
        tiny("hf:damaged")
    (here / "pickled").mkdir()
    (here / "pickled" / "config.json").write_text((hub / "config" / "config.json").read_text())
    (here / "pickled" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(PapertrialError, match="never loaded"):
        tiny("hf:pickled")


def test_data_that_a_run_was_trained_on_and_that_is_gone(here):
    np.savez(here / "mine.npz", X=np.random.default_rng(0).random((40, 8, 8, 1), dtype=np.float32), y=np.arange(40) % 2)
    pt.fit("vit", data="mine.npz", recipe="tiny", budget="2steps", out="run", progress=False)
    (here / "mine.npz").unlink()
    with pytest.raises(DataError, match=r"mine\.npz, which run was trained on, is not here; add --data"):
        tiny("run")


def test_training_and_comparing_are_declined(here):
    with pytest.raises(Declined, match="papertrial measure rank_collapse"):
        pt.fit("rank_collapse", data="digits")
    with pytest.raises(Declined, match="papertrial measure rank_collapse"):
        pt.compare(["rank_collapse"], data="digits", seeds=1)


# what is written


def a_report(**changes):
    curve = Curve("<b>one</b>", (0, 1, 2), (1.0, 1e-8, 1e-16), (0.5, 1e-9, 1e-17), (1.0, 1e-7, 1e-15))
    figure = Figure("Title & more", "layer", "size", (curve,), "How <i>to</i> read it", log=True, floor=1e-14)
    return Report(
        "A <title>", "It holds.", (("model", "<script>"),), ("a", "b"), (("1", "2"),), {}, (figure,), **changes
    )


def test_the_page_needs_nothing_else():
    html = page(a_report(caveats=("mind & gap",)))
    assert "A &lt;title&gt;" in html and "&lt;script&gt;" in html and "mind &amp; gap" in html
    own = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert not re.search(r"https?://|<link|<img|src=", own)
    assert not re.search(r"<script[^>]*\ssrc=", html)


def test_the_figure_shows_lines_bands_and_the_floor():
    drawn = draw(a_report().figures[0])
    band, line = drawn.data
    assert line["mode"] == "lines+markers" and line["y"] == [1.0, 1e-8, 1e-16]
    assert len(band["x"]) == 6
    low, high = drawn.layout["yaxis"]["range"]
    assert low < -17 and high > 0
    assert drawn.layout["yaxis"]["type"] == "log"
    assert drawn.layout["annotations"][0]["y"] == pytest.approx(-14)
    graph = pytest.importorskip("plotly.graph_objects", reason="needs plotly (the extra dev)")
    graph.Figure({"data": drawn.data, "layout": drawn.layout})  # raises for what Plotly does not know
    whole = Figure("t", "x", "y", (Curve("c", (0.0, 40.0), (1.0, 2.0)),))
    assert "shapes" not in draw(whole).layout and draw(whole).layout["xaxis"]["dtick"] == 4


def test_without_transformers_one_line(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PapertrialError, match=re.escape("pip install 'papertrial[backbones]'")):
        tiny("hf:anything")


def test_a_place_that_cannot_be_written(here):
    (here / "file").write_text("in the way")
    with pytest.raises(PapertrialError, match="file is a file; name a folder with --out"):
        tiny("vit", "digits", out="file/here")


# the command


@pytest.fixture
def command(capsys, monkeypatch, here):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["papertrial", "measure", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return stop.value.code or 0, out.out, out.err

    return call


def test_the_command_prints_table_and_sentence(command):
    code, out, err = command(
        "rank_collapse", "vit", "--data", "digits", "--recipe", "tiny", "--examples", 4, "--out", "kept"
    )
    assert code == 0, err
    assert "attention alone" in out and "verdict" in out and "saved in kept/plot.html" in out
    # it begins mimetic: values come out as they went in, and attention alone keeps what it is to lose
    assert "The claim does not hold here." in " ".join(out.split())


def test_the_command_as_json(command):
    code, out, err = command("rank_collapse", "mine_to_measure:encoder", "--examples", 3, "--set", "paths=5", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["numbers"]["outcome"] == "holds" and len(document["rows"]) == 4


def test_the_command_refuses_in_one_line(command):
    code, out, err = command("rank_collapse", "vit")
    assert code == 2 and not out and len(err.splitlines()) == 1 and "--data" in err
    code, _, err = command("rank_collapse")
    assert code == 2 and len(err.splitlines()) == 1 and "MODEL" in err
