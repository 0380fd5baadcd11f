"""Two processes give what one gives, on the CPU through gloo."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from test_train_resume import PROGRAM
from trainee import start, weights

from papertrial.core.run import Run


def test_two_ranks_equal_one(tmp_path):
    """Views, accumulation in uneven pieces, LARS and the average, in float64."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [str(PROGRAM), str(tmp_path / "two"), "lars-accumulate"]
    done = subprocess.run([*command, *program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    one, _ = start("lars-accumulate", tmp_path / "one", steps=12)
    two = load_file(f"{tmp_path / 'two'}.end")
    for name, tensor in weights(one).items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-10, atol=1e-12)
    logged = [[row["loss"] for row in Run(tmp_path / folder).history()] for folder in ("one", "two")]
    assert logged[0] == pytest.approx(logged[1], rel=1e-9)
