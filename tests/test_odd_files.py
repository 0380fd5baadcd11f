"""A hundred odd files through look, fit, predict and evaluate: no row is lost without a word."""

import pytest

from odd_files import cases, through

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_row_is_judged_or_named(case, tmp_path):
    account = through(case, tmp_path)
    said = " | ".join(account.notes)
    left = account.named(without_target=False)
    assert account.seen + left == case.rows, said
    assert account.answered + left == case.rows, said
    assert account.judged + account.named() == case.rows, said
    for words in case.says:
        assert words in said
    if case.right is not None:
        assert account.value >= case.right, said


def test_there_are_a_hundred():
    assert len(CASES) >= 100
    assert len({case.name for case in CASES}) == len(CASES)
