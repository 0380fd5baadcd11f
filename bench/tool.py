"""The tool around the methods: start-up, first looks at large data, loading, the loop, checkpoints and search, beside what one
would use instead.

    python -m bench.tool [start] [look] [loading] [loop] [checkpoint] [search] [--rounds 9] [--share 1.0] [--folder FOLDER]

Data are drawn by seed into the folder and kept there: 60 000 images in ten folders, a table of a million rows with 19 columns,
100 000 passages of 60 words (words by Zipf's law); `--share 0.1` takes a tenth of each, shows the rows and writes nothing.
Commands run in processes of their own, in turns with those of the peer, and count seconds of the processor, also of children; the
first time papertrial sees data it fills its cache, which the second time finds. The rows go to bench/tool.jsonl and docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import harness, results
from bench.harness import facts, in_turns, median_interval, rounded, seconds

IMAGES, ROWS, PASSAGES = 60_000, 1_000_000, 100_000
#: what each program begins with: at its end it says its peak, in kB
PEAK = """
import atexit, sys
def peak():
    with open("/proc/self/status") as lines:
        print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(peak)
"""
COMMAND = "from papertrial.app.cli import main; main()"
FIRST_STEP = """
import os, sys
from papertrial.train import loop
update = loop._Training.update
def first(*arguments, **options):
    update(*arguments, **options)
    peak()
    os._exit(0)
loop._Training.update = first
from papertrial.app.cli import main
main()
"""
BARE_STEP = """
import sys, pandas, torch
frame = pandas.read_csv(sys.argv[1])
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.from_numpy(frame.select_dtypes("number").to_numpy("float32")[:256, :8])).sum().backward()
optimizer.step()
"""
PILLOW_LOOK = """
import hashlib, os, sys
from collections import Counter
import numpy as np
from PIL import Image
sizes, classes, seen = Counter(), Counter(), Counter()
for folder in sorted(os.scandir(sys.argv[1]), key=lambda entry: entry.name):
    for entry in os.scandir(folder):
        with Image.open(entry.path) as image:
            pixels = np.asarray(image.convert("RGB"))
        sizes[pixels.shape] += 1
        classes[folder.name] += 1
        seen[hashlib.md5(pixels.tobytes()).digest()] += 1
print(sizes, classes, sum(count - 1 for count in seen.values()))
"""
PANDAS_LOOK = """
import sys, pandas
frame = pandas.read_csv(sys.argv[1])
print(frame.dtypes, frame.isna().sum(), frame.nunique(), frame.describe(), frame.duplicated().sum(), frame["target"].value_counts())
"""


# ------------------------------------------------------------------------------------------------------------------- data


def images(folder: Path, count: int) -> Path:
    """`count` PNG files of 32 x 32, each a blurred noise of its own, in ten folders."""
    from PIL import Image

    root = folder / f"images-{count}"
    if not (root / "9" / f"{count - 1}.png").exists():
        draw = np.random.default_rng(0)
        for label in range(10):
            (root / str(label)).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = Image.fromarray(draw.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            noise.resize((32, 32), Image.Resampling.BILINEAR).save(root / str(number * 10 // count) / f"{number}.png")
    return root


def table(folder: Path, rows: int) -> Path:
    """A CSV of ten measurements, four counts, three words with gaps, a date and a target."""
    import pyarrow as pa
    from pyarrow import csv

    file = folder / f"rows-{rows}.csv"
    if not file.exists():
        draw = np.random.default_rng(0)
        columns: dict[str, Any] = {f"measure {i}": draw.normal(size=rows).round(4) for i in range(10)}
        columns |= {f"count {i}": draw.poisson(3.0 * (i + 1), rows) for i in range(4)}
        words = np.array(["north", "south", "east", "west", "", "centre"])
        columns |= {f"place {i}": words[draw.integers(0, 6, rows)] for i in range(3)}
        columns["day"] = np.datetime64("2015-01-01") + draw.integers(0, 3000, rows)
        columns["target"] = np.where(columns["measure 0"] + draw.normal(size=rows) > 0, "yes", "no")
        csv.write_csv(pa.table(columns), file)
    return file


def passages(folder: Path, count: int) -> Path:
    """JSON Lines of 60 words each out of 100 000."""
    file = folder / f"passages-{count}.jsonl"
    if not file.exists():
        draw = np.random.default_rng(0)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        words = np.array(["".join(letters[draw.integers(0, 26, size)]) for size in draw.integers(2, 11, 100_000)])
        share = 1 / np.arange(1, 100_001)
        drawn = words[draw.choice(100_000, (count, 60), p=share / share.sum())]
        lines = (json.dumps({"_id": str(row), "title": "", "text": " ".join(text)}) for row, text in enumerate(drawn))
        file.write_text("\n".join(lines) + "\n")
    return file


# ------------------------------------------------------------------------------------------------------------- how measured


def process(cache: Path, text: str, *words: str | Path, empty: bool = False) -> tuple[float, float]:
    """Processor seconds, and MB at the peak, of a program in Python, with a cache of its own, an empty one where that is wanted."""
    with tempfile.TemporaryDirectory(dir=cache.parent) as fresh:
        place = {
            "PAPERTRIAL_CACHE": fresh if empty else str(cache),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        command = [sys.executable, "-c", PEAK + text, *map(str, words)]
        with open(f"{fresh}/said", "w+") as said:
            started = subprocess.Popen(
                command, env=os.environ | place, cwd=fresh, stdout=subprocess.DEVNULL, stderr=said
            )
            _, code, used = os.wait4(started.pid, 0)
            said.seek(0)
            lines = said.read().splitlines()
        if code:
            raise RuntimeError(f"{words} ended with {code}: {lines[-2:]}")
    # (what `used` says of memory is that of this process, where it was larger before the other began)
    return used.ru_utime + used.ru_stime, int(lines[-1]) / 1024 if lines and lines[-1].isdigit() else float("nan")


def row(
    what: str, size: str, ours: list[float], theirs: list[float] | None = None, peer: str = "", **more: Any
) -> dict:
    """A line of the results; seconds per round."""
    found: dict[str, Any] = {"paper": "tool", "what": what, "peer": peer, "size": size, "rounds": len(ours)}
    if ours:
        found["ours_ms"] = rounded(1e3 * float(np.median(ours)))
    if theirs:
        ratios = [their / own for their, own in zip(theirs, ours, strict=True)]
        low, ratio, high = map(rounded, median_interval(ratios))
        found |= {"peer_ms": rounded(1e3 * float(np.median(theirs))), "ratio": ratio, "low": low, "high": high}
    return found | {"differs": "", "bound": ""} | more | facts(peer, 1)


def processes(
    what: str, size: str, ours: Callable, peer: str, theirs: Callable | None, rounds: int, **more: Any
) -> dict:
    """A line for two commands in turns."""
    taken: list[list[tuple[float, float]]] = [[], []]
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            call = (ours, theirs)[side]
            if call is not None:
                taken[side].append(call())
    own, other = ([seconds for seconds, _ in some] for some in taken)
    more |= {
        f"{name}_mb": round(max(mb for _, mb in some), 1)
        for name, some in zip(("ours", "peer"), taken, strict=True)
        if some
    }
    return row(what, size, own, other or None, peer, **more)


def latencies(call: Callable[[str], Any], queries: list[str]) -> list[float]:
    """Processor seconds of each query, after some to warm up."""
    taken = []
    for query in [*queries[:20], *queries]:
        begun = time.process_time()
        call(query)
        taken.append(time.process_time() - begun)
    return taken[20:]


def percentiles(own: list[float], other: list[float] | None = None) -> dict[str, float]:
    found = {"ours_p99_ms": round(1e3 * float(np.quantile(own, 0.99)), 3)}
    return found | ({} if other is None else {"peer_p99_ms": round(1e3 * float(np.quantile(other, 0.99)), 3)})


# ------------------------------------------------------------------------------------------------------------- what is measured


class Bench:
    def __init__(self, folder: Path, share: float, rounds: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rounds = folder, rounds
        self.cache = folder / "cache"
        self.cache.mkdir(exist_ok=True)
        self.images, self.rows, self.passages = (int(share * many) for many in (IMAGES, ROWS, PASSAGES))

    def tool(self, *words: str | Path, **how: bool) -> Callable[[], tuple[float, float]]:
        return lambda: process(self.cache, COMMAND, *words, **how)

    def script(self, text: str, *words: str | Path) -> Callable[[], tuple[float, float]]:
        return lambda: process(self.cache, text, *words)

    def turns(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, list[float]]:
        return in_turns({"ours": ours, "peer": theirs}, seconds(torch.device("cpu")), self.rounds)

    def start(self) -> Iterator[dict]:
        """`import papertrial`, `papertrial list` (typer, which builds on pydantic, is more than half of it), and the first step of `fit`."""
        yield processes("import papertrial", "", self.script("import papertrial"), "", None, self.rounds)
        yield processes("papertrial list", "50 papers", self.tool("list"), "typer", self.script("import typer._adapters"), self.rounds,
                        bound="the peer's time is that of importing typer alone, without which no command starts")  # fmt: skip
        file = table(self.folder, 5000)
        words = (
            "fit",
            "rtdl:mlp",
            "--data",
            file,
            "--target",
            "target",
            "--budget",
            "10steps",
            "--quiet",
            "--out",
            "run",
        )
        yield processes(
            "fit, to its first step", "5000 rows", self.script(FIRST_STEP, *words), "torch", self.script(BARE_STEP, file), self.rounds,
            bound="the peer imports torch and pandas and takes one step of AdamW; the rest: the command line, Accelerate, facts of the data, a checkpoint",
        )  # fmt: skip

    def look(self) -> Iterator[dict]:
        root, file = images(self.folder, self.images), table(self.folder, self.rows)
        size = f"{self.images} images"
        yield processes(
            "look, the first time", size, self.tool("look", root, empty=True), "pillow", self.script(PILLOW_LOOK, root), self.rounds,
            differs="the peer finds no near duplicates, keeps nothing decoded and does not import torch for the tasks that fit",
            bound="sizes are read before pixels, as the size to decode to depends on them: each file is opened twice",
        )  # fmt: skip
        self.tool("look", root)()
        yield processes(
            "look, again", size, self.tool("look", root), "pillow", self.script(PILLOW_LOOK, root), self.rounds
        )
        size = f"{self.rows} rows, 19 columns"
        words = ("look", file, "--target", "target")
        yield processes(
            "look", size, self.tool(*words, empty=True), "pandas", self.script(PANDAS_LOOK, file), self.rounds,
            differs="the peer finds no rows that nearly agree, no dates, no columns that give the target away, and no tasks that fit",
            bound="values are read as text, to tell numbers, dates and gaps apart as people write them, then once more as what they are",
        )  # fmt: skip

    def loading(self) -> Iterator[dict]:
        """Batches of an epoch, against torch's DataLoader in one process; then the share of a training that waits for data."""
        from PIL import Image
        from torch.nn.utils.rnn import pad_sequence
        from torch.utils.data import DataLoader, Dataset, TensorDataset

        import papertrial as pt
        from papertrial.core.task import Ragged, Split
        from papertrial.data.images import Images
        from papertrial.nn.batches import Batches

        os.environ["PAPERTRIAL_CACHE"] = str(self.cache)
        root, steps = images(self.folder, self.images), 40
        files = sorted(root.rglob("*.png"))

        class Files(Dataset):
            def __len__(self) -> int:
                return len(files)

            def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
                with Image.open(files[index]) as image:
                    pixels = np.array(image.convert("RGB"))
                return torch.from_numpy(pixels).permute(2, 0, 1) / 255, int(files[index].parent.name)

        opened = pt.open(root)
        assert isinstance(opened, Images)
        pixels = Split({"image": opened.pixels(), "label": np.asarray(opened.labels, np.int64)})
        draw = np.random.default_rng(0)
        numbers = Split(
            {"numeric": draw.normal(size=(self.rows, 18)).astype(np.float32), "label": draw.integers(0, 2, self.rows)}
        )
        texts = [draw.integers(0, 256, size).astype(np.int32) for size in draw.integers(20, 300, 20_000)]
        ids = Split({"ids": Ragged.of(texts)})
        tensors = [torch.from_numpy(text.astype(np.int64)) for text in texts]
        rows = TensorDataset(torch.from_numpy(numbers["numeric"]), torch.from_numpy(numbers["label"]))
        pairs: list[tuple[str, str, Split, Any, Any, int]] = [
            ("images", f"{self.images}", pixels, Files(), None, 128),
            ("rows", f"{self.rows}", numbers, rows, None, 256),
            ("texts", "20000", ids, tensors, lambda some: pad_sequence(some, batch_first=True), 64),
        ]
        for what, size, split, dataset, collate, batch in pairs:

            def ours(split: Split = split, batch: int = batch) -> None:
                held = Batches(split, batch, seed=0)
                for step in range(steps):
                    held.at(step)
                held.close()

            def theirs(dataset: Any = dataset, collate: Any = collate, batch: int = batch) -> None:
                for step, _ in enumerate(DataLoader(dataset, batch, shuffle=True, collate_fn=collate)):
                    if step + 1 == steps:
                        return

            taken = self.turns(ours, theirs)
            yield row(f"loading {what}, {steps} batches of {batch}", size, taken["ours"], taken["peer"], "torch")
        corpus = passages(self.folder, self.passages)
        for what, size, words in (
            ("images", str(self.images), ("mlp_mixer", "--data", root)),
            ("rows", str(self.rows), ("rtdl:mlp", "--data", table(self.folder, self.rows), "--target", "target")),
            ("texts", str(self.passages), ("switch", "--data", f"{corpus}#text", "--task", "language_modeling")),
        ):
            yield self.waiting(what, size, words)

    def waiting(self, what: str, size: str, words: tuple[str | Path, ...]) -> dict:
        """Of a training of 40 steps: the share of the time between logged lines that waits for a batch."""
        from papertrial.core.run import Run

        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            out = f"{folder}/run"
            process(self.cache, COMMAND, "fit", *words, "--budget", "40steps", "--quiet", "--out", out)
            lines = [line for line in Run(out).history() if "waiting_for_data" in line]
        shares = [line["waiting_for_data"] for line in lines[1:]]
        return row(f"fit {words[0]}, waiting for {what}", size, [], waiting=round(float(np.mean(shares)), 4))

    def loop(self) -> Iterator[dict]:
        """Whole trainings of 300 steps, with checkpoints and a log, against a bare loop with the same optimizer and schedule."""
        from torch import nn

        from papertrial.core.budget import Budget
        from papertrial.core.recipe import Optim
        from papertrial.core.run import Run
        from papertrial.core.task import Split
        from papertrial.nn.heads import Supervised
        from papertrial.train.loop import train

        draw, batch, steps = np.random.default_rng(0), 128, 300
        split = Split(
            {"image": draw.integers(0, 256, (4096, 28, 28, 1), dtype=np.uint8), "label": draw.integers(0, 10, 4096)}
        )

        class Perceptron(nn.Module):
            def __init__(self, width: int) -> None:
                super().__init__()
                self.width = width
                self.layers = nn.Sequential(
                    nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
                )

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return self.layers(image)

        for width in (64, 512):

            def ours(width: int = width) -> None:
                with tempfile.TemporaryDirectory() as folder:
                    model = Supervised(Perceptron(width), 10)
                    train(
                        model, split, Optim(batch=batch), Budget(steps=steps), Run(Path(folder)), seed=0, progress=False
                    )

            def bare(width: int = width) -> None:
                model = Supervised(Perceptron(width), 10)
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
                schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
                order = np.random.default_rng(0)
                for _ in range(steps):
                    rows = order.permutation(4096)[:batch]
                    image = torch.from_numpy(split["image"][rows].transpose(0, 3, 1, 2).copy()) / 255
                    loss = model.loss({"image": image, "label": torch.from_numpy(split["label"][rows])})
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()

            taken = self.turns(ours, bare)
            yield row(f"training loop, {steps} steps of {batch}", f"perceptron of {width}", taken["ours"], taken["peer"], "torch",
                      bound="a seed for every step, the log, checkpoints, the watch for collapse, the meter of time, memory, energy")  # fmt: skip

    def checkpoint(self) -> Iterator[dict]:
        """25 million weights with the two averages of AdamW, 300 MB, against `torch.save`; both reach the disk."""
        from papertrial.train import checkpoint

        tensors = {f"model/{index}": torch.randn(1000, 2500) for index in range(30)}

        def ours() -> None:
            checkpoint.save(self.folder / "checkpoint.safetensors", tensors, {"step": 1})

        def theirs() -> None:
            with open(self.folder / "checkpoint.pt", "wb") as stream:
                torch.save(tensors, stream)
                stream.flush()
                os.fsync(stream.fileno())

        taken = self.turns(ours, theirs)
        begun = time.perf_counter()
        ours()
        wall = time.perf_counter() - begun
        share = wall / (wall + 30.0)
        yield row(
            "writing a checkpoint",
            "300 MB",
            taken["ours"],
            taken["peer"],
            "torch",
            wall_s=round(wall, 3),
            share_of_run=round(share, 4),
        )
        for file in self.folder.glob("checkpoint.*"):
            file.unlink()

    def search(self) -> Iterator[dict]:
        """Build, memory and latency of 300 queries of four words; vectors of 384 numbers."""
        import bm25s
        import faiss

        from papertrial.discover.dense import TextEncoder, unit
        from papertrial.discover.index import index
        from papertrial.discover.index_folder import read
        from papertrial.discover.search import Searcher

        faiss.omp_set_num_threads(1)
        file = passages(self.folder, self.passages)
        texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
        draw = np.random.default_rng(1)
        queries = [
            " ".join(draw.choice(texts[place].split(), 4, replace=False)) for place in draw.integers(0, len(texts), 300)
        ]
        size, built = f"{len(texts)} passages", []
        for build in (lambda: self._index(index, file, None), lambda: self._bm25s(bm25s, texts)):
            begun = time.process_time()
            made = build()
            built.append((made, time.process_time() - begun))
        (folder, own), (retriever, other) = built
        on_disk = sum(part.stat().st_size for part in folder.rglob("*") if part.is_file()) / 2**20
        yield row("index for words", size, [own], [other], "bm25s", disk_mb=round(on_disk, 1))
        searcher = Searcher(read(folder))
        taken = [
            latencies(lambda query: searcher._by_words(query, 100), queries),
            latencies(
                lambda query: retriever.retrieve(
                    bm25s.tokenize([query], stopwords=None, show_progress=False), k=100, show_progress=False
                ),
                queries,
            ),
        ]
        yield row("search by words, 100 hits", size, *taken, "bm25s", **percentiles(*taken))
        whole = latencies(searcher.search, queries)
        yield row("papertrial.search, ten hits with snippets", size, whole, **percentiles(whole))

        places: dict[str, np.ndarray] = {}

        def encode(some: Any) -> np.ndarray:
            """Sums of a random vector for each word: what an encoder costs is its own, and not measured here."""
            vectors = np.zeros((len(some), 384), np.float32)
            for place, text in enumerate(some):
                for word in text.split():
                    if word not in places:
                        places[word] = np.random.default_rng(abs(hash(word))).normal(size=384).astype(np.float32)
                    vectors[place] += places[word]
            return vectors

        coder = TextEncoder("sums", "1", 384, encode)
        vectors = unit(encode(texts))
        asked = {query: unit(encode([query])) for query in queries}
        for kind, make in (("flat", lambda: faiss.IndexFlatIP(384)), ("hnsw", lambda: self._graph(faiss))):
            folder = self._index(index, file, coder, kind)
            searcher = Searcher(read(folder), coder)
            searcher._open()
            theirs = make()
            begun = time.process_time()
            theirs.add(vectors)
            adding = time.process_time() - begun
            taken = [
                latencies(lambda query: searcher._nearest(asked[query][0], 100, searcher.store.place), queries),  # noqa: B023
                latencies(lambda query: theirs.search(asked[query], 100), queries),  # noqa: B023
            ]
            about = searcher.store.manifest["dense"]
            yield row(f"search by meaning, {kind}, 100 hits", size, *taken, "faiss-cpu", **percentiles(*taken), ours_mb=round(about["memory"] / 2**20, 1),
                      recall=about.get("recall"), peer_build_ms=round(1e3 * adding),
                      bound="" if kind == "flat" else "equally near vectors are put in the order of their ids, a tenth of a millisecond in NumPy")  # fmt: skip

    @staticmethod
    def _graph(faiss: Any) -> Any:
        index = faiss.IndexHNSWFlat(384, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 128
        return index

    def _index(self, index: Callable, file: Path, coder: Any, kind: str | None = None) -> Path:
        folder = self.folder / f"index-{kind or 'words'}"
        index(file, folder, encoder=coder, kind=kind, fresh=True)
        return folder

    @staticmethod
    def _bm25s(bm25s: Any, texts: list[str]) -> Any:
        made = bm25s.BM25()
        made.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
        return made


def main() -> None:
    parts = ("start", "look", "loading", "loop", "checkpoint", "search")
    parser = argparse.ArgumentParser(
        prog="python -m bench.tool", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes of the data")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "papertrial-bench")
    given = parser.parse_args()
    if wrong := [part for part in given.parts if part not in parts]:
        parser.error(f"there is no part {', '.join(wrong)}; there are {', '.join(parts)}")
    harness.start(1)
    bench = Bench(given.folder.resolve(), given.share, given.rounds)
    for part in given.parts or parts:
        for found in getattr(bench, part)():
            print(results.line(found), flush=True)
            if given.share == 1:  # at once, so that nothing is lost with the process
                results.save(results.merge(results.load(results.TOOL), [found], whole=False), results.TOOL)
    if given.share == 1:
        results.write_page(results.load(), results.load(results.TOOL))


if __name__ == "__main__":
    main()
