"""What a page of `papertrial web` costs: CPU time of the server per page, and latency with many clients at once.

    python bench/web.py RUNS [--clients 50] [--seconds 10]

Every page is asked for once, to fill the caches, then 20 times alone, then by all clients at the same time, each of which
asks for one page after another. CPU time is that of the server's process; latency is wall-clock.
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import psutil

from papertrial.app.web.runs import Runs

TIMES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    command = [sys.executable, "-m", "papertrial", "web", str(asked.runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://([\d.]+):(\d+)/", server.stdout.readline())
            assert address is not None
            place, process = (address[1], int(address[2])), psutil.Process(server.pid)
            entries = Runs(asked.runs).entries()
            runs = [f"/runs/{quote(entry.path)}" for entry in entries]
            pages = ["/", "/?q=attention", "/papers/rtdl", "/papers/switch", "/runs", *runs, "/search?q=attention"]
            alone(pages, place, process)
            together(pages, place, asked.clients, asked.seconds, process)
        finally:
            server.terminate()


def alone(pages: list[str], place: tuple[str, int], process: psutil.Process) -> None:
    talk = http.client.HTTPConnection(*place)
    print(f"{'page':<32} {'first':>9} {'then':>9} {'CPU':>9} {'size':>9}")
    for page in pages:
        first, size = ask(talk, page)
        before = cpu(process)
        times = [ask(talk, page)[0] for _ in range(TIMES)]
        spent = (cpu(process) - before) / TIMES
        told = (f"{1000 * seconds:.1f} ms" for seconds in (first, statistics.median(times), spent))
        print(f"{page:<32} {' '.join(f'{words:>9}' for words in told)} {size / 1000:>6.1f} kB")


def together(pages: list[str], place: tuple[str, int], clients: int, seconds: float, process: psutil.Process) -> None:
    times: list[float] = []
    failed: list[str] = []
    end, before = time.monotonic() + seconds, cpu(process)

    def client(number: int) -> None:
        talk = http.client.HTTPConnection(*place)
        while time.monotonic() < end:
            page = pages[number % len(pages)]
            number += 1
            try:
                times.append(ask(talk, page)[0])
            except (OSError, http.client.HTTPException) as error:
                failed.append(f"{page}: {error}")
                return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(times, n=100)
    print(
        f"{clients} clients for {seconds:g} s: {len(times)} pages, {len(times) / seconds:.0f} a second, {len(failed)} failed"
    )
    print(f"latency: median {1000 * cuts[49]:.0f} ms, 95 % {1000 * cuts[94]:.0f} ms, 99 % {1000 * cuts[98]:.0f} ms")
    print(f"CPU of the server: {1000 * (cpu(process) - before) / len(times):.1f} ms a page")
    for line in failed[:3]:
        print(line)


def ask(talk: http.client.HTTPConnection, page: str) -> tuple[float, int]:
    """Seconds and bytes."""
    begun = time.perf_counter()
    talk.request("GET", page)
    answer = talk.getresponse()
    size = len(answer.read())
    if answer.status != 200:
        raise OSError(f"status {answer.status}")
    return time.perf_counter() - begun, size


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
