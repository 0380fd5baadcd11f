"""`papertrial` for tests that interrupt it: with a checkpoint after every step, and in processes that start at once.

`tortured.py fit ...` runs one command. `tortured.py serve` reads lines of JSON, the arguments of `command`, and runs each in
a process of its own, forked from one that has the seconds of imports behind it. It answers with the number of that
process, and with its exit code when it has ended (-9: killed); until the next line the number is given to no other.
"""

import errno
import gc
import importlib
import itertools
import json
import os
import resource
import signal
import sys
from pathlib import Path

IMPORTS = (
    "papertrial.app.cli",
    "papertrial.train.loop",
    "papertrial.use.artifact",
    "papertrial.baselines.resnet",
    "papertrial.papers.barlow_twins",
    "papertrial.papers.mlp_mixer",
    "papertrial.papers.nfnet",
    "papertrial.papers.rtdl",
    "papertrial.data.toy",
    "papertrial.tasks.image_classification",
    "papertrial.tasks.image_representation",
    "papertrial.tasks.tabular",
    "pydantic.type_adapter",
    "sklearn.datasets",
    "papertrial.data.tables",
    "sklearn.linear_model",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torch.utils.tensorboard",
)


def checkpoint_every_step():
    from papertrial.train import loop

    loop.train.__kwdefaults__["checkpoint_seconds"] = 0.0


def trip(where, after, how):
    """Let the call `where` (replace, fsync, save_file, log), after so many, find no space ("full") or halt the process ("halt").

    where: FSIZE, for "full", lets no file grow beyond `after` bytes; AS, for "full", no memory beyond so many more.
    """
    from safetensors import SafetensorError

    from papertrial.core.run import Run
    from papertrial.train import checkpoint

    if where.isupper():
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if where == "AS" else 0
        resource.setrlimit(getattr(resource, f"RLIMIT_{where}"), (held + after,) * 2)
        return
    owner = {"save_file": checkpoint, "log": Run}.get(where, os)
    real, calls = getattr(owner, where), itertools.count()

    def call(*arguments, **more):
        number = next(calls)
        if how == "halt" and number == after:
            os.kill(os.getpid(), signal.SIGSTOP)
        if how == "halt" or number < after:
            return real(*arguments, **more)
        if where == "save_file":
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, "No space left on device")

    setattr(owner, where, call)


def command(words, said, every_step=True, at=None):
    """`papertrial WORDS` in this process, which ends with it; the error stream goes to the file `said`.

    every_step: whether to write that many checkpoints.  at: arguments of `trip`.
    """
    from papertrial.app import cli

    for stream, place in ((1, os.devnull), (2, said)):
        file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    if every_step:
        checkpoint_every_step()
    if at:
        trip(*at)
    sys.argv = ["papertrial", *words]
    cli.main()


def serve():
    for module in IMPORTS:
        importlib.import_module(module)
    from papertrial.core import registry
    from papertrial.train.energy import energy_source

    registry.entries()  # reads all papers
    energy_source()  # asks for the name of the processor, which takes a second
    gc.freeze()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` has ignored
    ended = 0
    for line in sys.stdin:
        if ended:
            os.waitpid(ended, 0)
        ended = os.fork()
        if not ended:
            try:
                command(**json.loads(line))
            except SystemExit as end:
                os._exit(end.code)
        print(ended, flush=True)
        how = os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        print(how.si_status if how.si_code == os.CLD_EXITED else -how.si_status, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        from papertrial.app import cli

        checkpoint_every_step()
        cli.main()
