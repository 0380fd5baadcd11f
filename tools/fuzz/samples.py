"""Whole files of all formats: data as people bring them, and what papertrial's own commands write. Each is a folder with the
commands that read it; `{d}` in a command is the data."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.fuzz.trial import Started


@dataclass(frozen=True)
class Sample:
    """make: fills the folder.  before: commands that fill it further.  after: what reads it once it is damaged.  damaged: patterns
    of the files that may be.  killed: the last of the commands before is killed at its first checkpoint.  method: of which a setting
    beyond its range, or of the training at its end, is asked for in place of damage; it stands for `{set}` in a command."""

    name: str
    make: Callable[[Path], object]
    after: tuple[str, ...]
    before: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ("*",)
    killed: bool = False
    method: str = ""

    def files(self, folder: Path) -> list[Path]:
        """Those that may be damaged, in order."""
        found = {file for pattern in self.damaged for file in folder.rglob(pattern) if file.is_file()}
        return sorted(
            file for file in found if not {".lock", "tmp", "tensorboard"} & set(file.relative_to(folder).parts)
        )


def setting(method: str, draw: random.Random) -> str:
    """`name=value` of a method or of its training, from the ranges that they state."""
    from papertrial.core import registry
    from papertrial.core.recipe import Optim, ranges
    from papertrial.testing.settings import beyond, ends

    config = registry.method(method).module.Config
    cls = draw.choice((config, config, Optim))
    name, within = draw.choice(sorted(ranges(cls).items()))
    values = beyond(within) + (ends(within) if cls is Optim else [])
    value = draw.choice(values) if values else "x"
    words = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{name}={words.replace(' ', '-')}"


def made(sample: Sample, folder: Path) -> None:
    """The whole sample in a new folder. Raises RuntimeError where a command on whole files fails."""
    folder.mkdir(parents=True)
    sample.make(folder)
    for line in sample.before:
        started = Started(line.split(), folder)
        killed = False
        while (ended := started.ended()) is None:
            if (
                sample.killed
                and line == sample.before[-1]
                and not killed
                and any(folder.rglob("checkpoint.safetensors"))
            ):
                killed = True
                os.kill(started.process, signal.SIGKILL)
            time.sleep(0.005)
        if ended.code and not killed:
            raise RuntimeError(f"{sample.name}: papertrial {line}: {ended.said[-400:]}")
    for name in ("tmp",) if "cache/*" in sample.damaged else ("tmp", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------------------- data


def _rows(count: int = 60) -> list[dict[str, object]]:
    draw = random.Random(0)
    rows: list[dict[str, object]] = []
    for place in range(count):
        size = round(draw.gauss(0, 1), 3)
        rows.append(
            {
                "size": size,
                "sort": draw.choice("abc"),
                "day": f"2024-01-{place % 28 + 1:02}",
                "y": "yes" if size > 0 else "no",
            }
        )
    return rows


def _delimited(mark: str, rows: Sequence[dict[str, object]]) -> bytes:
    lines = [list(rows[0]), *([*map(str, row.values())] for row in rows)]
    return "".join(mark.join(line) + "\n" for line in lines).encode()


def _lines(rows: Iterable[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _file(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _parquet(folder: Path) -> None:
    import pandas as pd

    pd.DataFrame(_rows()).to_parquet(folder / "d.parquet")


def _arrays(folder: Path, ending: str = ".npz") -> None:
    import numpy as np

    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    if ending == ".npz":
        np.savez(folder / "d.npz", X=x, y=(x[:, 0] > 0).astype(np.int64))
    else:
        np.save(folder / "d.npy", (np.abs(x.reshape(-1, 4, 4)) * 60).astype(np.uint8))


def _zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "d.zip", "w") as held:
        held.writestr("d.csv", _delimited(",", _rows()))


def _pictures(folder: Path, count: int = 24) -> None:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for place in range(count):
        for at, name in enumerate(("cat", "dog")):
            file = folder / "photos" / name / f"{place}.{'png' if place % 3 else 'jpg'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(at * 60, 120 + at * 60, (8, 8, 3), dtype=np.uint8)).save(file)


def _packed(folder: Path, ending: str) -> None:
    _pictures(folder)
    if ending == ".zip":
        shutil.make_archive(str(folder / "d"), "zip", folder / "photos")
    else:
        with tarfile.open(folder / "d.tar", "w") as held:
            held.add(folder / "photos", "photos")
    shutil.rmtree(folder / "photos")


def _captioned(folder: Path, coco: bool = False) -> None:
    _pictures(folder, 12)
    files = sorted((folder / "photos").rglob("*.*"))
    captions = [
        {"image": file.relative_to(folder / "photos").as_posix(), "caption": f"a {file.parent.name} {file.stem}"}
        for file in files
    ]
    if coco:
        images = [
            {"id": place, "file_name": row["image"], "width": 8, "height": 8} for place, row in enumerate(captions)
        ]
        notes = [{"id": place, "image_id": place, "caption": row["caption"]} for place, row in enumerate(captions)]
        (folder / "photos" / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}))
    else:
        (folder / "photos" / "captions.jsonl").write_bytes(_lines(captions))


def _idx(folder: Path) -> None:
    draw = random.Random(0)
    (folder / "d").mkdir()
    for part, count in (("train", 60), ("t10k", 30)):
        pixels, labels = draw.randbytes(count * 64), bytes(place % 3 for place in range(count))
        (folder / "d" / f"{part}-images-idx3-ubyte").write_bytes(
            b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (count, 8, 8)) + pixels
        )
        (folder / "d" / f"{part}-labels-idx1-ubyte").write_bytes(
            b"\x00\x00\x08\x01" + count.to_bytes(4, "big") + labels
        )


def _cifar(folder: Path) -> None:
    draw = random.Random(0)
    (folder / "d").mkdir()
    for name, count in (("data_batch_1.bin", 40), ("test_batch.bin", 20)):
        (folder / "d" / name).write_bytes(b"".join(bytes([place % 3]) + draw.randbytes(3072) for place in range(count)))


_WORDS = ("attention", "contrast", "diffusion", "trees", "negatives", "tokens", "tables", "images")


def _reviews(count: int = 60) -> list[dict[str, object]]:
    return [
        {
            "text": f"a {'fine' if n % 2 else 'dull'} film about {_WORDS[n % 8]} number {n}",
            "label": "good" if n % 2 else "bad",
        }
        for n in range(count)
    ]


def _prose(folder: Path) -> None:
    (folder / "d").mkdir()
    for place in range(4):
        text = " ".join(f"The model of {_WORDS[line % 8]} reads chapter {place}.{line}." for line in range(60))
        (folder / "d" / f"{place}.txt").write_text(text)


def _documents() -> list[dict[str, object]]:
    return [
        {
            "id": f"2101.{n:05}",
            "title": f"On {_WORDS[n % 8]}",
            "abstract": f"We study {_WORDS[n % 8]} with {_WORDS[(n + 1) % 8]}, {n}.",
        }
        for n in range(40)
    ]


def _beir(folder: Path) -> None:
    beir = folder / "d"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_bytes(
        _lines([{"_id": d["id"], "title": d["title"], "text": d["abstract"]} for d in _documents()])
    )
    (beir / "queries.jsonl").write_bytes(_lines([{"_id": f"q{n}", "text": f"{_WORDS[n % 8]} {n}"} for n in range(30)]))
    for split, part in (("train", range(20)), ("test", range(20, 30))):
        rows = "".join(f"q{n}\t2101.{n:05}\t1\n" for n in part)
        (beir / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)


def _squad(folder: Path) -> None:
    answers = [{"text": "We", "answer_start": 0}]
    paragraphs = [
        {"context": f"{d['title']}. {d['abstract']}", "qas": [{"id": f"q{n}", "question": f"What of {_WORDS[n % 8]} {n}?", "answers": answers}]}
        for n, d in enumerate(_documents())
    ]  # fmt: skip
    (folder / "d.json").write_text(json.dumps({"version": "1.1", "data": [{"title": "all", "paragraphs": paragraphs}]}))


_BIB = "".join(
    f"@article{{k{n}, title={{On {_WORDS[n % 8]}}}, author={{Ada {n} and Bo}}, year={{2021}}, abstract={{We study \\'e {n}}}}}\n"
    for n in range(20)
).encode()


def _judged() -> list[dict[str, object]]:
    return [
        {"system": f"s{s}", "reference": f"the sum is {n} today", "output": " ".join(["the sum is", str(n), "today"][: 3 - s]), "score": 3 - s}
        for n in range(20) for s in range(3)
    ]  # fmt: skip


def _answers() -> list[dict[str, object]]:
    return [
        {"item": str(n), "system": system, "rater": f"r{rater}", "question": "quality", "value": (n + rater + at) % 5 / 4}
        for n in range(12) for rater in range(3) for at, system in enumerate(("ours", "theirs"))
    ]  # fmt: skip


def _outputs(folder: Path) -> None:
    for name in ("ours", "theirs"):
        rows = [{"item": n, "source": f"a text, number {n}", "output": f"{name} says {n}"} for n in range(6)]
        (folder / f"{name}.jsonl").write_bytes(_lines(rows))


_TEMPLATE = """
kind = "rating"
instructions = "How good is it?"
[[questions]]
name = "quality"
text = "How good?"
options = ["bad", "fair", "good"]
"""
_PROGRAM = b"""opp = length - indices - 1;
reverse(s) { flip = select(indices, opp, ==); return aggregate(flip, s); }
r = reverse(tokens);
"""
_JUDGE = "judge new study ours=ours.jsonl theirs=theirs.jsonl --db judge.sqlite"


def _template(folder: Path) -> None:
    _outputs(folder)
    (folder / "t.toml").write_text(_TEMPLATE)


_FIT = "fit {m} --data {d} --budget 3trials --quiet --out run"


def _data(name: str, make: Callable[[Path], object], d: str, method: str, *more: str) -> Sample:
    fit = "fit {m} --data {d} --recipe tiny --budget 3steps --quiet --out run" if method in _NETS else _FIT
    after = ("look {d}", fit, *more)
    return Sample(name, make, tuple(line.replace("{d}", d).replace("{m}", method) for line in after))


_NETS = ("mlp_mixer", "text_transformer")

DATA = (
    _data("csv", _file("d.csv", _delimited(",", _rows())), "d.csv", "linear"),
    _data("tsv", _file("d.tsv", _delimited("\t", _rows())), "d.tsv", "majority"),
    _data("json", _file("d.json", json.dumps(_rows()).encode()), "d.json", "linear"),
    _data("jsonl", _file("d.jsonl", _lines(_rows())), "d.jsonl", "linear"),
    _data("parquet", _parquet, "d.parquet", "majority"),
    _data("csv.gz", _file("d.csv.gz", gzip.compress(_delimited(",", _rows()), mtime=0)), "d.csv.gz", "majority"),
    _data("csv.zip", _zipped, "d.zip", "majority"),
    _data("npz", _arrays, "d.npz", "linear"),
    _data("npy", lambda folder: _arrays(folder, ".npy"), "d.npy", "pixel_gaussian"),
    _data("photos", _pictures, "photos", "linear"),
    _data("photos.zip", lambda folder: _packed(folder, ".zip"), "d.zip", "majority"),
    _data("photos.tar", lambda folder: _packed(folder, ".tar"), "d.tar", "majority"),
    _data("captions", _captioned, "photos", "majority"),
    _data("coco", lambda folder: _captioned(folder, True), "photos", "majority"),
    _data("idx", _idx, "d", "majority"),
    _data("cifar", _cifar, "d", "majority"),
    _data("reviews", _file("d.csv", _delimited(",", _reviews())), "d.csv", "tfidf"),
    _data("prose", _prose, "d", "ngram"),
    _data("documents", _file("d.jsonl", _lines(_documents())), "d.jsonl", "majority", "index d.jsonl --out idx", "search idx trees"),
    _data("beir", _beir, "d", "bm25", "index d --out idx"),
    _data("squad", _squad, "d.json", "bm25", "index d.json --out idx"),
    _data("bibtex", _file("d.bib", _BIB), "d.bib", "majority", "index d.bib --out idx"),
    _data("judged", _file("d.csv", _delimited(",", _judged())), "d.csv", "length", "compare bleu --data d.csv --out study"),
    Sample("answers", _file("d.jsonl", _lines(_answers())), ("judge results d.jsonl",)),
    Sample("outputs", _outputs, (_JUDGE,)),
    Sample("template", _template, (f"{_JUDGE} --template t.toml",), damaged=("*.toml",)),
    Sample("rasp", _file("d.rasp", _PROGRAM), ("rasp d.rasp --example hello",)),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ own files


def _run(
    name: str, make: Callable[[Path], object], d: str, method: str, more: str = "", uses: Sequence[str] = ()
) -> Sample:
    """A finished run, and all that reads one."""
    fit = f"fit {method} --data {d} --quiet --out runs/run {more}".strip()
    uses = uses or (f"predict runs/run {d}", f"evaluate runs/run {d}")
    after = (*uses, "report runs/run", fit, "web / /runs /runs/run /reports/run /search?q=x")
    return Sample(f"run of {name}", make, after, (fit,), ("runs/run/*",))


_TABLE, _TEXTS, _JUDGED = (_file("d.csv", _delimited(",", rows)) for rows in (_rows(), _reviews(), _judged()))
_STEPS, _TRIALS = "--recipe tiny --budget 4steps", "--budget 2trials"


def _evidence(folder: Path) -> None:
    here = Path(__file__).parents[2] / "evidence"
    (folder / "evidence" / "tiny").mkdir(parents=True)
    for name in ("rtdl.jsonl", "tiny/rtdl.jsonl"):
        shutil.copy(here / name, folder / "evidence" / name)


def _cached(folder: Path) -> None:
    _TABLE(folder)
    _pictures(folder)


_RESNET = "--backbone resnet --set backbone.width=8 --set backbone.depths=1,1"
_BPE = "--set tokeniser=bpe --set vocabulary=300"
_BYT5 = "--task text_to_text " + " ".join(
    f"--set {name}={value}"
    for name, value in {
        "width": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "heads": 2,
        "head_width": 8,
        "hidden": 16,
        "longest": 48,
    }.items()
)
_AWAY = ("predict runs/run photos", "export runs/run --out m.pt --to torch", "eject runs/run --out plain")
_STOPPED = "fit rtdl:mlp --data d.csv --quiet --out runs/run --recipe tiny --budget 20steps --technique agc"
_COMPARE = "compare bleu --data d.csv --seeds 2 --no-worth --out runs/study"
_LOOKS = ("look d.csv", "look photos")
_MADE = "--task image_generation"
_DRAW = "generate runs/run --n 2 --out pictures"

_SET = "--recipe tiny --budget 2steps --set {set} --quiet --out run"

SETTINGS = (
    *(
        Sample(f"settings of {name}", _TABLE, (f"fit {name} --data d.csv {_SET}",), method=name)
        for name in ("rtdl", "rtdl:mlp", "linear", "xgboost", "lightgbm")
    ),
    *(
        Sample(f"settings of {name}", _pictures, (f"fit {name} --data photos {_SET}",), method=name)
        for name in ("mlp_mixer", "nfnet", "resnet", "vit", "guided_diffusion")
    ),
    *(
        Sample(f"settings of {name}", _TEXTS, (f"fit {name} --data d.csv {_SET}",), method=name)
        for name in ("text_transformer", "byt5", "switch")
    ),
)

OWN = (
    _run("mlp_mixer", _pictures, "photos", "mlp_mixer", _STEPS, _AWAY),
    _run("rtdl", _TABLE, "d.csv", "rtdl:mlp", _STEPS),
    _run("text_transformer", _TEXTS, "d.csv", "text_transformer", f"{_STEPS} {_BPE}"),
    _run("barlow_twins", _pictures, "photos", "barlow_twins", f"{_STEPS} {_RESNET}", ("embed runs/run photos --out e.npy",)),
    _run("byt5", _TEXTS, "d.csv", "byt5", f"{_STEPS} {_BYT5}", ("generate runs/run a --length 4",)),
    _run("ngram", _prose, "d", "ngram", "", ("evaluate runs/run d",)),
    _run("pixel_gaussian", _pictures, "photos", "pixel_gaussian", _MADE, (_DRAW,)),
    *(_run(name, _TABLE, "d.csv", name, _TRIALS) for name in ("linear", "majority", "xgboost", "lightgbm", "catboost")),
    _run("nearest", _TEXTS, "d.csv", "nearest", "--task text_to_text", ("generate runs/run a", "evaluate runs/run d.csv")),
    _run("tfidf", _TEXTS, "d.csv", "tfidf", _TRIALS),
    _run("bm25", _beir, "d", "bm25", "", ("evaluate runs/run d",)),
    _run("rouge", _JUDGED, "d.csv", "rouge", "", ("evaluate runs/run d.csv",)),
    Sample(
        "stopped run", _TABLE, (_STOPPED, "report runs/run", f"{_STOPPED} --fresh", "web /runs /runs/run"), (_STOPPED,), ("runs/run/*",), killed=True,
    ),
    Sample(
        "comparison", _JUDGED, ("report runs/study", _COMPARE, "web /runs /runs/study /reports/study"), (_COMPARE,),
        ("runs/study/*.json", "runs/study/*/*/*.json*", "runs/study/*/*/*.npy"),
    ),
    Sample(
        "index", _file("d.jsonl", _lines(_documents())),
        ("search runs/idx trees", "index d.jsonl --out runs/idx", "search runs/idx trees --mode bm25",
         "web / /search?q=trees&index=idx /search?q=trees&index=list", "index d.jsonl --out runs/idx --fresh"),
        ("index d.jsonl --out runs/idx",), ("runs/idx/*",),
    ),
    Sample("cache", _cached, (*_LOOKS, "fit linear --data photos --budget 1trials --quiet --out run"), _LOOKS, ("cache/*",)),
    Sample(
        "evidence", _evidence,
        ("report evidence", "report evidence/rtdl.jsonl", "web / /papers/rtdl", "check rtdl --kind identity --scale tiny --seeds 1"),
    ),
    Sample("pictures", _pictures, (f"{_DRAW} --replace", _DRAW), (f"fit pixel_gaussian --data photos --quiet --out runs/run {_MADE}", _DRAW), ("pictures/*",)),
    Sample(
        "judge", _outputs,
        ("judge status --db judge.sqlite", "judge export study answers.jsonl --db judge.sqlite",
         "judge results study --db judge.sqlite", "judge invite study --db judge.sqlite"),
        (_JUDGE,), ("judge.sqlite*",),
    ),
)  # fmt: skip
