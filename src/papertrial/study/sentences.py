"""The words of a comparison: what is said of each method, what to do, and the notes that keep words from being misread."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from papertrial.core.budget import Budget, duration
from papertrial.core.run import Run
from papertrial.core.stats import CANNOT_TELL, HELPS, Verdict, reach
from papertrial.core.wording import counted
from papertrial.study.comparison import Comparison, Row
from papertrial.study.entrants import Entrant
from papertrial.study.judging import SILENT, Judge
from papertrial.tasks._metrics import METRICS
from papertrial.use.folds import rounds

#: what takes so many times as long, and more than these seconds longer, is dearer
_CHEAPER, _ALIKE = 2.0, 1.0
#: a method that so many others of its cost exceed is not advised
_EXCEEDED = 3
_LATE = 1.5  # times a run's share of time from which it is said


def caution(words: Mapping[str, Verdict], looks: Sequence[int]) -> list[str]:
    """When a word is stricter than the interval beside it looks."""
    stricter = [
        name
        for name, verdict in words.items()
        if verdict.word == CANNOT_TELL and not verdict.reason and (verdict.low > 0 or verdict.high < 0)
    ]
    if not stricter:
        return []
    why = []
    if len(words) > 1:
        why.append(f"{len(words)} methods were tried at once (Holm)")
    if looks:
        why.append(f"it was judged before, with {', '.join(map(str, looks))} seeds")
    return [f"{', '.join(stricter)}: the interval excludes zero, but that is not enough yet, since {' and '.join(why)}"]


def late(rows: Sequence[Row], budget: Budget) -> list[str]:
    """Which methods took clearly longer than their equal share of time, so that the word is not taken for what it was."""
    given = budget.seconds
    if not given:
        return []
    slow = [row for row in rows if row.seconds is not None and row.seconds > _LATE * given]
    said = ", ".join(f"{row.name} {duration(row.seconds or 0.0)}" for row in slow)
    why = "the machine was busy, or one step or trial takes that long; a larger --budget is kept more closely"
    return [f"took longer than the {duration(given)} of a run: {said}; {why}"] if slow else []


def tuned(entrants: Sequence[Entrant], budget: Budget) -> list[str]:
    """Who tunes itself, which only a budget of seconds or trials limits, where the budget has neither."""
    if budget.seconds is not None or budget.trials is not None:
        return []
    able = (entrant for entrant in entrants if entrant.method.paper.kind == "estimator" and not entrant.stopped)
    return [entrant.name for entrant in able if any(outcome.meter.trials > 1 for outcome in entrant.outcomes)]


def unbound(entrants: Sequence[Entrant], budget: Budget) -> list[str]:
    names = tuned(entrants, budget)
    words = f"{', '.join(names)} tuned without a limit: {budget} do not limit tuning; a --budget in seconds limits all alike"
    return [words] if names else []


def few_seeds(seeds: int, tried: int) -> list[str]:
    """What two seeds can show, said before they are run."""
    if seeds != 2:
        return []
    times, better = round(reach(2, tried)), round(reach(5, tried), 1)
    return [
        f"two seeds show no difference under {times} standard deviations between seeds, five show one of {better};"
        " of methods without chance they show as much"
    ]


def verdict_words(
    result: Comparison, entrants: Sequence[Entrant], unlimited: Collection[str], judge: Judge, floors: Collection[str]
) -> list[str]:
    """unlimited: who spent more than the budget says, with whom nobody is at an equal one.  floors: baselines that do not
    look at the inputs."""
    by_name = {entrant.name: entrant for entrant in entrants}
    found = []
    for name, verdict in result.verdicts.items():
        if verdict.reason.startswith(SILENT):
            found.append(f"{name}: {verdict.reason}.")
            continue
        words = verdict.sentence(
            name,
            result.reference,
            result.metric,
            higher_is_better=result.higher_is_better,
            budget="" if {name, result.reference} & {*unlimited} else result.budget,
            digits=result.digits,
            rounds=rounds(result.seeds, result.folds),
        )
        steps = rising(by_name[name])
        if steps:
            words = f"{words[:-1]}; at this budget: its validation was still rising after {counted(steps, 'step')}."
        found.append(words)
    found += [
        f"{entrant.name} failed on this data: {entrant.stopped.rstrip('.')}."
        for entrant in entrants
        if entrant.asked and entrant.stopped
    ]
    if not any(verdict.word == HELPS for verdict in result.verdicts.values()):
        silent = {name for name, verdict in result.verdicts.items() if verdict.reason.startswith(SILENT)}
        standing = [entrant for entrant in entrants if not entrant.stopped and entrant.name not in silent]
        found.append(advice(result, standing, judge, floors))
    return found


def advice(result: Comparison, standing: Sequence[Entrant], judge: Judge, floors: Collection[str]) -> str:
    """What to use where nothing is shown to beat the reference: the cheapest of those that cannot be told from the best
    test figure, and the best baseline of those that cost about as much.

    standing: who was trained.  floors: baselines that do not look at the inputs.
    """
    none = f"No method is shown to beat {result.reference}"
    sign = 1.0 if result.higher_is_better else -1.0
    figure = {row.name: sign * row.metric for row in result.rows if row.metric is not None}
    seconds = {row.name: row.seconds or 0.0 for row in result.rows}
    able = [entrant for entrant in standing if entrant.name not in floors]
    if result.seeds < 2 or not able:
        return f"{none}."
    top = max(able, key=lambda entrant: figure[entrant.name])
    if judge.at_floor(top):
        ends, shown = judge.interval(top) or (math.nan, math.nan), f"{result.metric} {sign * figure[top.name]:.3f}"
        between = f"the best is {top.name} with {shown} [{ends[0]:.3f}, {ends[1]:.3f}]"
        metric = METRICS.get(result.metric.partition("=")[0])
        if metric is not None and metric.of == "agreement":
            return f"Nothing here is shown to agree with people more than chance does: {between}."
        return f"Nothing here is shown to do better than not looking at the inputs, {judge.floor(top):.3f}: {between}."
    level = [e for e in able if e is top or not judge.alone(e, top).high < 0]
    dear = _CHEAPER * min(seconds[entrant.name] for entrant in level) + _ALIKE
    cheap = [entrant for entrant in level if seconds[entrant.name] <= dear]
    best = max(cheap, key=lambda entrant: (not entrant.asked, figure[entrant.name]))
    above = [entrant for entrant in cheap if figure[entrant.name] > figure[best.name]]
    cheaper = [entrant for entrant in above if _CHEAPER * seconds[entrant.name] <= seconds[best.name]]
    if len(above) >= _EXCEEDED or cheaper:
        best = max(cheaper or above, key=lambda entrant: figure[entrant.name])
    if best.name == result.reference:
        return f"{none}: use {best.name} here."
    if best in cheaper:
        times = f"{duration(seconds[best.name])}"
        return f"{none}: use {best.name} here, which has no lower a test figure and took {times}."
    if top not in cheap:
        times = f"{duration(seconds[best.name])} instead of {duration(seconds[top.name])}"
        return (
            f"{none}: use {best.name} here, which cannot be told from the best figure, {top.name}'s, and took {times}."
        )
    whose = "has the best test figure" if best is top else "has the best test figure of the baselines"
    return f"{none}, and {best.name} {whose}: use {best.name} here."


def rising(entrant: Entrant) -> int:
    """After how many steps its budgets ended while validation still rose, in half of the runs or more; 0 where it did not."""
    ended = []
    for outcome in entrant.runs.values():
        checked = [row["validation"] for row in Run(outcome.folder).history() if row.get("validation") is not None]
        if len(checked) > 2 and checked[-1] > max(checked[:-1]):
            ended.append(outcome.meter.steps)
    return round(sum(ended) / len(ended)) if ended and 2 * len(ended) >= len(entrant.runs) else 0
