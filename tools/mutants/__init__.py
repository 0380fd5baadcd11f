"""Small, real bugs, one at a time, to see whether the tests notice: `make mutants FILE=src/papertrial/core/stats.py`.

    changes     what is changed: comparisons and their bounds, arithmetic, booleans, constants, calls, arguments, order
    trial       which tests are tried, and how: each change in a process of its own, forked from one that has imported torch

A change that no test notices is a missing test, a line that does nothing, or the same program written differently. The last two
kinds are written down, with the reason, in `explained.toml`.
"""
