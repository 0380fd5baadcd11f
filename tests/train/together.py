"""Processes as `torchrun` starts them, without the seconds of its imports: forked by a server that has torch."""

import multiprocessing
import multiprocessing.connection
import os
import traceback
from pathlib import Path

import torch
from torch.distributed import TCPStore

from papertrial.testing.ranks import LOADED


def together(work, *arguments, said: Path, count=2):
    """Run `work(*arguments)` in `count` processes that may meet; their exit codes, in order of rank.

    said: a file, where they leave what they write on the error stream; their output is in one with the suffix `.out`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun keeps one, too
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    started = [
        context.Process(
            target=_member,
            args=(
                {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), **where},
                said,
                work,
                arguments,
            ),
            daemon=True,
        )
        for rank in range(count)
    ]
    for process in started:
        process.start()
    left = {process.sentinel: process for process in started}
    while left:
        for sentinel in multiprocessing.connection.wait(list(left)):
            if left.pop(sentinel).exitcode:
                for process in left.values():  # as torchrun does
                    process.terminate()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def _member(variables, said, work, arguments):
    os.environ |= variables
    for stream, file in ((1, said.with_suffix(".out")), (2, said)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    torch.set_num_threads(1)
    try:
        work(*arguments)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        os._exit(1)
