"""A study under load: so many raters at once on one server, and every answer that was acknowledged counted afterwards.

    python bench/judge.py [--raters 200] [--seconds 60] [--pause 1.5] [--db FILE|URL] [--questions 1]

The server is a process of its own, as `papertrial judge serve` starts it; the raters are connections of this process,
each of which looks at an item for a time drawn evenly from 0 to twice `--pause` seconds and answers it as htmx does.
`--pause 0` asks for as much as goes through. Prints latencies of an answer, from the first byte sent to the last one
read, and ends with an error when an answer was refused or lost, or is there twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import psutil

from papertrial.app.judge.outputs import read
from papertrial.app.judge.store import Store
from papertrial.core.judgement import template

_ASSIGNMENT = re.compile(rb'name="assignment" value="(\d+)">\s*<fieldset')
_WARMING = 2.0  # seconds over which raters come in


class Rater:
    """One browser: a connection that is kept open, and a cookie."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host, self.port, self.token, self.cookie = host, port, token, ""
        self.reader: asyncio.StreamReader | None = None
        self.acknowledged: list[int] = []
        self.latencies: list[float] = []
        self.errors: list[str] = []

    async def ask(self, method: str, path: str, form: dict[str, object] | None = None) -> tuple[int, bytes, bytes]:
        """Status, headers and body of an answer. A connection that the server has closed is opened anew, as browsers do."""
        if self.reader is None or self.reader.at_eof():
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        body = urlencode(form or {}).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"Cookie: {self.cookie}"] if self.cookie else []
        if method == "POST":
            lines += [f"Origin: http://{self.host}:{self.port}", "HX-Request: true", f"Content-Length: {len(body)}"]
            lines += ["Content-Type: application/x-www-form-urlencoded"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        return int(head.split(b" ", 2)[1]), head, await self.reader.readexactly(int(length[1]) if length else 0)

    async def work(
        self, until: float, pause: float, questions: int, draw: random.Random, most: int = sys.maxsize
    ) -> None:
        """Answer items until the time is over or there are `most` answers."""
        await asyncio.sleep(draw.uniform(0, _WARMING))
        try:
            _, head, _ = await self.ask("GET", f"/judge/enter/{self.token}")
            self.cookie = re.search(rb"set-cookie: ([^;]+)", head, re.IGNORECASE)[1].decode()
            page = re.search(rb"location: (\S+)/start", head, re.IGNORECASE)[1].decode()
            status, _, body = await self.ask("POST", f"{page}/begin")
            while time.monotonic() < until and len(self.acknowledged) < most:
                found = _ASSIGNMENT.search(body)
                if status != 200 or found is None:
                    self.errors.append(f"{status}: {body[:80]!r}")
                    return
                await asyncio.sleep(draw.uniform(0, 2 * pause))
                own = int(found[1])
                form = {f"q{index}": draw.randint(1, 5) for index in range(questions)}
                began = time.perf_counter()
                status, _, body = await self.ask("POST", f"{page}/answer", {"assignment": own, **form})
                self.latencies.append(time.perf_counter() - began)
                self.acknowledged += [own] if status == 200 else []
        except (OSError, asyncio.IncompleteReadError, TypeError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(OSError, AttributeError):  # there may have been none
                self.writer.close()
                await self.writer.wait_closed()


def study(place: str, raters: int, items: int, questions: int, folder: Path) -> tuple[Store, int, list[str]]:
    """A study with more than enough items."""
    outputs = folder / "outputs.jsonl"
    with outputs.open("w") as stream:
        for item in range(items):
            for system in "ab":
                text = f"What {system} says of {item}. " * 8
                row = {"item": item, "system": system, "source": f"Question {item}?", "output": text}
                stream.write(json.dumps(row) + "\n")
    asked = template()
    if questions > 1:
        more = folder / "more.toml"
        words = json.dumps(asked.questions[0].scale.words)
        values = json.dumps(asked.questions[0].scale.values)
        blocks = [
            f'[[questions]]\nname = "q{index}"\ntext = "Good?"\nscale = {{ words = {words}, values = {values} }}\n'
            for index in range(questions)
        ]
        more.write_text('kind = "rating"\n' + "".join(blocks))
        asked = template(str(more))
    store = Store(place, create=True)
    made, _ = store.add(f"load {time.time()}", asked, read([str(outputs)], asked), raters=raters)
    invited = store.invite(made.id or 0, [f"rater {index}" for index in range(raters)])
    return store, made.id or 0, [token for _, token in invited]


def serve(place: str, folder: Path) -> tuple[subprocess.Popen, str, int]:
    """A server of its own, once it says where."""
    with (folder / "errors.txt").open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-u", "-m", "papertrial", "judge", "serve", "--db", place, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    address = urlsplit(server.stdout.readline().split()[1])
    return server, address.hostname, address.port


async def load(host: str, port: int, tokens: list[str], seconds: float, pause: float, questions: int) -> list[Rater]:
    raters = [Rater(host, port, token) for token in tokens]
    until = time.monotonic() + seconds
    await asyncio.gather(
        *(rater.work(until, pause, questions, random.Random(index)) for index, rater in enumerate(raters))
    )
    return raters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pause", type=float, default=1.5, help="seconds a rater looks at an item, on average")
    parser.add_argument("--items", type=int, default=8_000, help="each with two outputs")
    parser.add_argument("--questions", type=int, default=1)
    parser.add_argument("--db", help="postgresql://...; a SQLite file in a temporary folder when left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = arguments.db or str(folder / "load.db")
        store, own, tokens = study(place, arguments.raters, arguments.items, arguments.questions, folder)
        server, host, port = serve(place, folder)
        try:
            raters = asyncio.run(load(host, port, tokens, arguments.seconds, arguments.pause, arguments.questions))
            spent = sum(psutil.Process(server.pid).cpu_times()[:2])
        finally:
            server.terminate()
            server.wait()
        errors = Counter(error for rater in raters for error in rater.errors)
        times = sorted(time for rater in raters for time in rater.latencies)
        told = sum(len(rater.acknowledged) for rater in raters)
        kept = Counter((row.item, row.system, row.question) for row in store.judgements(own).ratings)
        quantiles = {share: 1e3 * times[min(int(share * len(times)), len(times) - 1)] for share in (0.5, 0.95, 0.99)}
        print(f"{arguments.raters} raters for {arguments.seconds:g} s, {arguments.pause:g} s an item")
        print(
            f"answers acknowledged {told}, {told / arguments.seconds:.0f} a second; {1e3 * spent / max(told, 1):.1f} ms of a core each"
        )
        print("milliseconds " + ", ".join(f"{100 * q:.0f} %: {v:.0f}" for q, v in quantiles.items()), end="")
        print(f", longest: {1e3 * times[-1]:.0f}")
        print(
            f"judgements in the database {sum(kept.values())}; more than asked for {sum(n > 1 for n in kept.values())}"
        )
        said = (folder / "errors.txt").read_text()
        print(f"errors {sum(errors.values())} {dict(errors.most_common(3)) or ''}; server said {said.strip()[-500:]!r}")
        if errors or said or sum(kept.values()) != told * arguments.questions or max(kept.values()) > 1:
            sys.exit("judgements were lost, refused, or are there twice")


if __name__ == "__main__":
    main()
