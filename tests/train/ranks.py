"""Trainings of every kind of method in float64, run by the tests alone and by torchrun on several processes.

As a program: `ranks.py FOLDER`. It leaves the weights of each training in FOLDER/<number of processes>/<name>.safetensors, an
interrupted training in FOLDER/<number>/half, and what it goes on with from halves that others have left.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

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
    processes.join()
    world = torch.distributed.get_world_size()
    own = folder / str(world)

    def keep(name, model):
        if processes.is_main():
            own.mkdir(parents=True, exist_ok=True)
            save_file(weights(model), own / f"{name}.safetensors")

    shard._WORTH = 500  # layers of these small models are gathered one by one too
    for name in TRAININGS:
        keep(name, start(name, own / name))
    stop_half_way(own / "half")
    for left in sorted(folder.glob("*/half")):
        copy = own / f"from-{left.parent.name}"
        processes.once(lambda left=left, copy=copy: shutil.copytree(left, copy) and None)
        keep(copy.name, start(HALF, copy))
    processes.part()


if __name__ == "__main__":
    torch.set_num_threads(1)
    program(Path(sys.argv[1]))
