"""What a tokeniser has learnt goes into checkpoints, through several processes, and into files of other kinds."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.nn.heads import Supervised
from papertrial.nn.tokenise import Bpe
from papertrial.nn.transformer import Encoder, gpt2_layout
from papertrial.train import checkpoint
from papertrial.train.loop import train

TEXTS = ["the cat sat on the mat", "a dog ran to the log", "das Pferd fraß Gras", "die Kuh lag im Stall"] * 8
LABELS = np.array([0, 0, 1, 1] * 8)


class Reader(Encoder):
    def __init__(self, texts=TEXTS):
        torch.manual_seed(0)
        super().__init__(Bpe(280).fit(texts), gpt2_layout(16, 2, 2, 32, longest=32, dropout=0.0))


def learn(folder, texts=TEXTS, steps=6, sharded=False, techniques=()):
    model = Supervised(Reader(texts), 2, inputs=("ids",))
    split = Split({"ids": model.encoder.tokeniser.encode(TEXTS), "label": LABELS})
    train(
        model, split, Optim(batch=8), Budget(steps=steps), Run(folder), seed=0, progress=False, device="cpu",
        checkpoint_seconds=0.0, techniques=techniques, sharded=sharded,
    )  # fmt: skip
    return model


class Interrupt:
    left = 3

    def after_step(self, model):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_run_goes_on_with_the_tokeniser_it_began_with(tmp_path):
    whole = learn(tmp_path / "whole")
    for texts in (TEXTS, ["other words than before, other words"] * 3):
        folder = tmp_path / texts[0][:5]
        with pytest.raises(KeyboardInterrupt):
            learn(folder, techniques=[Interrupt()])
        if texts is TEXTS:
            again = learn(folder)
            assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
        else:
            with pytest.raises(PapertrialError, match=r"another encoder\.tokeniser than the data gives now.*--fresh"):
                learn(folder, texts)
    tensors, _ = checkpoint.load(tmp_path / "whole" / "checkpoint.safetensors")
    assert tensors["extra/encoder.tokeniser"].dtype == torch.uint8


def test_a_run_without_such_states_has_none(tmp_path):
    assert checkpoint.extra_states(nn.Linear(2, 2)) == {}
    checkpoint.require_extra_states(nn.Linear(2, 2), {})


@pytest.mark.slow
def test_several_processes_keep_it(tmp_path):
    """DDP and FSDP2: what the main process saves is what one process saves."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(Path(__file__)), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one = learn(tmp_path / "one").state_dict()
    for how in ("together", "split"):
        several = load_file(tmp_path / f"{how}.safetensors")
        assert several.keys() == one.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(several[name], tensor, rtol=1e-4, atol=1e-5)
        again = Supervised(Reader(["a"]), 2, inputs=("ids",))
        again.load_state_dict(several)
        assert again.encoder.tokeniser.decode(again.encoder.tokeniser.encode(["the cat"])[0]) == "the cat"
        tensors, _ = checkpoint.load(tmp_path / how / "checkpoint.safetensors")
        assert torch.equal(tensors["extra/encoder.tokeniser"], one["encoder.tokeniser._extra_state"])


def test_a_program_of_torch_export_carries_it(tmp_path):
    model = Reader().eval()
    ids = torch.from_numpy(model.tokeniser.encode(TEXTS[:4]).padded().astype(np.int64))
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=32)}
    with torch.no_grad():
        program = torch.export.export(model, (ids,), dynamic_shapes=(dims,))
        torch.export.save(program, tmp_path / "model.pt2")
        again = torch.export.load(tmp_path / "model.pt2").module()
        shorter = ids[:3, :5].clone()
        torch.testing.assert_close(again(shorter), model(shorter))


if __name__ == "__main__":
    from papertrial.train import processes, shard

    torch.set_num_threads(1)
    processes.join()
    shard._WORTH = 500
    for how in ("together", "split"):
        trained = learn(Path(sys.argv[1]) / how, sharded=how == "split")
        if processes.is_main():
            save_file(trained.state_dict(), Path(sys.argv[1]) / f"{how}.safetensors")
    processes.part()
