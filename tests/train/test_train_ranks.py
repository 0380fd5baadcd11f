"""Two processes give what one gives, on the CPU through gloo."""

import subprocess
import sys

import pytest
import torch
import trainee
from safetensors.torch import load_file
from together import together

from papertrial.core.run import Run


@pytest.mark.parametrize("launcher", ["forked", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_two_ranks_equal_one(launcher, tmp_path):
    """Views, accumulation in uneven pieces, LARS and the average, in float64."""
    words = [str(tmp_path / "two"), "lars-accumulate"]
    if launcher == "forked":
        said = tmp_path / "said"
        assert together(trainee.program, *words, said=said) == [0, 0], said.read_text()
    else:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run([*command, trainee.__file__, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    one, _ = trainee.start("lars-accumulate", tmp_path / "one", steps=12)
    two = load_file(f"{tmp_path / 'two'}.end")
    for name, tensor in trainee.weights(one).items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-10, atol=1e-12)
    logged = [[row["loss"] for row in Run(tmp_path / folder).history()] for folder in ("one", "two")]
    assert logged[0] == pytest.approx(logged[1], rel=1e-9)
