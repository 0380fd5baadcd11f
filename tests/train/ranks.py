"""Trainings of every kind of method in float64, run by the tests alone and on several processes.

As a program, for torchrun: `ranks.py N WORDS`, which is `papertrial WORDS` where rank 1 is killed after N updates (0: never).
"""

import itertools
import os
import signal
import sys
from dataclasses import replace

import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from papertrial.app import cli
from papertrial.core.budget import Budget
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.testing import bench
from papertrial.train import processes, shard
from papertrial.train.checkpoint import model_tensors
from papertrial.train.loop import train

STEPS = 5
ADAMW = Optim(batch=22, lr=3e-3, ema=0.5, weight_decay=0.1)  # 22 rows divide over neither 3 nor 4
LARS = Optim(optimizer="lars", batch=22, lr=0.5, accumulate=2, clip=0.0)
#: name -> method, how it is trained, whether its weights are split over the processes
TRAININGS = {
    "mlp_mixer": ("mlp_mixer", ADAMW, False),
    "mlp_mixer-split": ("mlp_mixer", replace(ADAMW, patience=2), True),
    "barlow_twins": ("barlow_twins", LARS, False),
    "barlow_twins-split": ("barlow_twins", LARS, True),
    "rtdl": ("rtdl", ADAMW, False),
    "rtdl-split": ("rtdl", ADAMW, True),
    "rtdl-resnet": ("rtdl:resnet", Optim(optimizer="sgd", batch=22, lr=0.05), False),
    "resnet": ("resnet", ADAMW, False),
}
HALF = "mlp_mixer"


class Interrupt:
    """A technique that stops every process in the middle of an update."""

    def __init__(self, at):
        self.left = at

    def after_step(self, model):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def wide(model):
    """The model in float64, which takes float32 batches."""

    class Wide(type(model)):
        def loss(self, batch):
            return super().loss({key: x.double() if x.is_floating_point() else x for key, x in batch.items()})

    model.double().__class__ = Wide
    return model


def start(name, folder, *, techniques=(), seconds=30.0):
    """The model after a training; every process may make other weights, the main one's count."""
    method, optim, split = TRAININGS[name]
    b = bench(method)
    fields = b.method.module.Config.__dataclass_fields__
    masks = {key: 0.0 for key in fields if "dropout" in key or "stochastic" in key}  # each process draws its own
    model = wide(b.model(**masks))
    rows = b.task.training(model, b.prepared)

    def validate():
        return -float(model.loss(b.batch(model)).detach())

    train(
        model, rows, optim, Budget(steps=STEPS), Run(folder), seed=3, progress=False, device="cpu", log_every=1,
        validate=validate, checkpoint_seconds=seconds, techniques=techniques, sharded=split,
    )  # fmt: skip
    return model


def stop_half_way(folder):
    """Leave a training that was stopped in its third update, with the checkpoint of the second."""
    try:
        start(HALF, folder, techniques=[Interrupt(3)], seconds=0.0)
    except KeyboardInterrupt:
        return
    raise AssertionError("it was not stopped")


def weights(model):
    return {key: tensor.detach().clone().contiguous() for key, tensor in model_tensors(model).items()}


def program(folder):
    """All trainings by the processes that meet here: their weights in FOLDER/<number of processes>/<name>.safetensors, and an
    interrupted training in FOLDER/<number>/half."""
    processes.join()
    own = folder / str(torch.distributed.get_world_size())
    shard._WORTH = 500  # layers of these small models are gathered one by one too
    for name in TRAININGS:
        _keep(start(name, own / name), own / f"{name}.safetensors")
    stop_half_way(own / "half")
    processes.part()


def go_on(folder):
    """The interrupted training in `folder`, which leaves its weights there."""
    processes.join()
    _keep(start(HALF, folder), folder / "end.safetensors")
    processes.part()


def _keep(model, file):
    if processes.is_main():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights(model), file)


def command(words, dies_at):
    """`papertrial WORDS`, with a checkpoint after every update; the process of rank 1 is killed after so many, if any."""
    updates = itertools.count(1)

    def count(*_):
        if next(updates) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if dies_at and os.environ["RANK"] == "1":
        register_optimizer_step_post_hook(count)
    train.__kwdefaults__["checkpoint_seconds"] = 0.0
    sys.argv = ["papertrial", *words]
    cli.main()


if __name__ == "__main__":
    command(sys.argv[2:], int(sys.argv[1]))
