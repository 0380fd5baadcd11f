"""Blocks that two or more methods use, in plain PyTorch."""
