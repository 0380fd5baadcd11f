"""A whole study in a browser: twenty raters at once, by mouse, by thumb, by keyboard and without JavaScript; what they
said is what is kept, and nothing in what they read has run."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import ExitStack

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs fastapi (the extra web)")
pytest.importorskip("sqlmodel", reason="needs sqlmodel (the extra web)")

import judging
from judging import new_study, outputs, write_rows
from papertrial.app.judge.routes import add_judge
from papertrial.app.judge.store import Store
from papertrial.app.site import make_site
from papertrial.app.site.serve import listen
from webpage import CHROMIUM, browser, inspect, passing_on, serving

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
TEXTS = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    '"><svg onload=alert(3)>',
    "javascript:window.hacked = 4",
    "שלום עולם\nשורה שנייה",
    "مرحبا (hello) بالعالم",
    "🎉👩‍👩‍👧‍👦 🏳️‍🌈",
    "def f(x):\n    if x:\n\treturn 1\n    return   2\n",
    "x" * 700,
    "A text of some length. " * 60,
]
LIKERT = ["strongly agree", "agree", "neither agree nor disagree", "disagree", "strongly disagree"]
MODES = ["mouse", "phone", "keys", "plain"]  # of the raters in turn; plain: without JavaScript
GONE = '.answers input[name="assignment"]:not([value="{}"]), .middle'


class Person:
    """A rater who answers by what the texts are, and remembers."""

    def __init__(self, browser, address: str, name: str, mode: str) -> None:
        self.browser, self.address, self.name, self.mode = browser, address, name, mode
        self.said: dict[tuple[str, ...], int] = {}
        self.complaints: list[str] = []

    async def judge(self) -> None:
        phone = self.mode == "phone"
        context = await self.browser.new_context(
            viewport={"width": 390 if phone else 1280, "height": 844},
            has_touch=phone,
            is_mobile=phone,
            java_script_enabled=self.mode != "plain",
        )
        self.page = page = await context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        await page.goto(self.address)
        assert "/enter/" not in page.url
        await (page.keyboard.press("Enter") if self.mode == "keys" else page.click("text=Begin"))
        await page.wait_for_selector(".answers")
        undone = False
        while await page.locator(".answers").count():
            own = await page.input_value('.answers [name="assignment"]')
            await self._answer(random.Random(f"{self.name}{await self._shown()}"))
            await page.wait_for_selector(GONE.format(own), state="attached")
            if not undone:
                await self._pause()
                await (page.keyboard.press("u") if self.mode == "keys" else page.click("#undo"))
                await page.wait_for_selector(f'.answers input[value="{own}"]', state="attached")
                undone = True
        assert "Thank you" in await page.locator("#desk").inner_text()
        if self.mode != "plain":
            assert await page.evaluate("window.hacked") is None
            assert await page.evaluate("document.documentElement.scrollWidth") <= (390 if phone else 1280)
        await context.close()

    async def _shown(self) -> tuple[str, ...]:
        return tuple(await self.page.locator(".output .made, .output .empty").all_text_contents())

    async def _pause(self) -> None:
        if self.mode != "plain":  # a tap right after another one is taken for a double tap
            await self.page.wait_for_timeout(320)

    async def _answer(self, draw: random.Random) -> None:
        """Give an answer to what is shown, by what the mode has."""
        page = self.page
        shown = await self._shown()
        count = await page.locator(".choices [name=q0]").count()
        choice = draw.randrange(count)
        await self._pause()
        button = page.locator(".choices [name=q0]").nth(choice)
        if self.mode == "keys":
            await page.keyboard.press(["ArrowLeft", "Space", "ArrowRight"][choice] if count == 3 else str(choice + 1))
        elif self.mode == "phone":
            box = await button.bounding_box()
            assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 390
            await button.tap()
        elif self.mode == "mouse":
            await button.dblclick()  # the second click answers nothing
        else:
            await button.click()
        self.said[shown] = choice


@pytest.mark.slow
def test_twenty_raters_at_once_say_what_is_kept(tmp_path):
    if CHROMIUM is None:
        pytest.skip("needs chromium, which is not on this machine")
    player = pytest.importorskip("playwright.async_api", reason="needs playwright (the extra dev)")
    made = {
        (f"item {place}", system): text + tail
        for place, text in enumerate(TEXTS)
        for system, tail in (("A", ""), ("B", " (b)"))
    }
    made["item 0", "A"] = ""
    rows = [
        {"item": item, "system": system, "source": f"A question with <b> in {item}?", "output": text}
        for (item, system), text in made.items()
    ]
    file = write_rows(tmp_path / "outputs.jsonl", rows)
    checks = write_rows(tmp_path / "checks.jsonl", [{"output": "xx yy zz", "answer": "strongly disagree"}])
    store = Store(tmp_path / "x.db", create=True)
    likert, admin, many = new_study(store, file, raters=14, labels=2, checks=checks)
    pairs, _, few = new_study(store, file, asked="pairwise", raters=6, labels=2)
    server, host, port = judging.bench().serve(str(tmp_path / "x.db"), tmp_path)

    async def study() -> list[Person]:
        async with player.async_playwright() as running:
            browser = await running.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
            people = [
                Person(browser, f"http://{host}:{port}/judge/enter/{token}", rater.name, MODES[index % 4])
                for index, (rater, token) in enumerate([*many, *few])
            ]
            await asyncio.gather(*(person.judge() for person in people))
            page = await browser.new_page(viewport={"width": 390, "height": 844})
            said = []
            page.on("console", lambda message: said.append(message.text))
            await page.goto(f"http://{host}:{port}/judge/enter/{admin}")
            await page.click("text=Count them now")
            await page.wait_for_selector("#board .answer, #board .board")
            assert re.search("40 of 40 labels", await page.inner_text("#progress")) and not said
            assert await page.evaluate("document.documentElement.scrollWidth") <= 390
            await browser.close()
        return people

    try:
        people = asyncio.run(study())
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    assert [person.complaints for person in people] == [[]] * 20
    assert (tmp_path / "errors.txt").read_text() == "papertrial: stopped by SIGTERM\n"
    for person in people:
        person.said.pop(("xx yy zz",), None)
    empty = "The output is empty."
    found = store.judgements(likert.id)
    assert len(found.ratings) == 40 and 0 < len(found.checks) <= 14
    kept = {(row.rater, (made[row.item, row.system] or empty,)): row.value for row in found.ratings}
    assert kept == {(p.name, shown): 1 - choice / 4 for p in people[:14] for shown, choice in p.said.items()}
    kept = {}
    for row in store.judgements(pairs.id).preferences:
        shown = tuple(made[row.item, system] or empty for system in (row.first, row.second))
        kept[row.rater, shown] = row.outcome
    told = {}
    for person in people[14:]:
        for shown, choice in person.said.items():
            flipped = shown not in {tuple(made[f"item {i}", s] or empty for s in "AB") for i in range(len(TEXTS))}
            told[person.name, shown[::-1] if flipped else shown] = (choice if flipped else 2 - choice) / 2
    assert kept == told and len(kept) == 20
    assert store.progress(likert.id).undone >= 14
    store.close()


def test_behind_a_proxy_with_tls_a_study_is_judged_and_administered(tmp_path):
    store = Store(tmp_path / "x.db", create=True)
    study, admin, [(_, token)] = new_study(store, outputs(tmp_path, 1), raters=1)
    with listen("127.0.0.1", 0) as listening, browser() as made, ExitStack() as stack:
        home = f"https://localhost:{listening.getsockname()[1]}"
        site = make_site(url=home)
        add_judge(site, store)
        stack.enter_context(passing_on(listening, stack.enter_context(serving(site)), tmp_path))
        context = made.new_context(ignore_https_errors=True)
        page = context.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{home}/judge/enter/{token}")
        page.click("text=Begin")
        for done in (1, 2):
            page.wait_for_selector(f"text={done} of 2")
            page.wait_for_timeout(320)
            page.locator(".choices [name=q0]").first.click()
        page.wait_for_selector("text=Thank you")
        page.goto(f"{home}/judge/enter/{admin}")
        page.click("text=Make links")
        assert page.locator("#links code").inner_text().startswith(f"{home}/judge/enter/") and not said
        cookies = context.cookies()
        assert len(cookies) == 2 and all(cookie["secure"] and cookie["httpOnly"] for cookie in cookies)
        assert page.goto(f"{home}/judge").status == 401  # the list of studies is for those who have the site's token
        context.close()
    assert [row.value for row in store.judgements(study.id).ratings] == [1.0, 1.0]
    store.close()


def test_a_scale_of_numbers_is_answered_by_its_own_keys(tmp_path):
    words = ", ".join(f'"{number}"' for number in range(11))
    values = ", ".join(str(number / 10) for number in range(11))
    form = tmp_path / "scale.toml"
    form.write_text(
        f'kind = "rating"\n[[questions]]\nname = "q"\ntext = "How good?"\nscale = {{ words = [{words}], values = [{values}] }}\n'
    )
    store = Store(tmp_path / "x.db", create=True)
    study, _, [(_, token)] = new_study(store, outputs(tmp_path, 5, "a"), asked=str(form), raters=1)
    site = make_site()
    add_judge(site, store)
    with serving(site) as home, browser() as made:
        page = made.new_page()
        page.goto(f"{home}/judge/enter/{token}")
        page.keyboard.press("Enter")
        for place, (keys, own) in enumerate((("7", 0.7), ("10", 1.0), ("0", 0.0), ("1", 0.1)), 1):
            page.wait_for_selector(f"text={place} of 5")
            page.wait_for_timeout(320)
            for key in keys:
                page.keyboard.press(key)
            page.wait_for_selector(f"text={place + 1} of 5")
            assert store.judgements(study.id).ratings[-1].value == own
        page.wait_for_timeout(320)
        page.keyboard.press("r")  # the words go where they are typed, digits too
        page.keyboard.type("it has 7 errors")
        page.keyboard.press("Escape")
        page.keyboard.press("1")
        page.keyboard.press("Enter")  # at once: no 0 follows
        page.wait_for_selector("text=Thank you")
    found = store.judgements(study.id)
    assert found.ratings[-1].value == 0.1 and [remark.remark for remark in found.remarks] == ["it has 7 errors"]
    store.close()


def test_a_lost_connection_hides_no_answer_and_is_made_good(tmp_path):
    rows = [{"item": place, "system": s, "output": "A long text. " * 400} for place in range(2) for s in "AB"]
    Image.new("RGB", (1500, 700), (30, 200, 30)).save(tmp_path / "large.png")
    drawn = [{"item": 1, "system": "A", "image": "large.png"}]
    store = Store(tmp_path / "x.db", create=True)
    texts, _, invited = new_study(store, write_rows(tmp_path / "texts.jsonl", rows), asked="pairwise", raters=2)
    _, _, [(_, pictures)] = new_study(store, write_rows(tmp_path / "drawn.jsonl", drawn), raters=1)
    site = make_site()
    add_judge(site, store)
    free = """[...document.querySelectorAll(".choices button, #notice button")].every((one) => {
        one.scrollIntoView({ block: "nearest" });
        const { x, y, width, height } = one.getBoundingClientRect();
        return one.contains(document.elementFromPoint(x + width / 2, y + height / 2));
    })"""
    with serving(site) as home, browser() as made:
        for width, (_, token) in zip((390, 1280), invited, strict=True):
            context = made.new_context(viewport={"width": width, "height": 800}, has_touch=width == 390)
            page = context.new_page()
            page.goto(f"{home}/judge/enter/{token}")
            page.click("text=Begin")
            page.wait_for_selector(".answers")
            page.wait_for_timeout(320)
            context.set_offline(True)
            page.locator(".choices button").first.click()
            page.wait_for_selector("#notice:not([hidden])")
            assert page.evaluate(free), width
            context.set_offline(False)  # what was lost is sent again by itself
            page.wait_for_selector("text=1 of 1 done")
            context.close()
        page = made.new_page(viewport={"width": 390, "height": 800})
        page.goto(f"{home}/judge/enter/{pictures}")
        page.click("text=Begin")
        page.click(".enlarge img")
        assert page.evaluate("document.querySelector('#large img').width") == 1500
        page.keyboard.press("1")  # answers nothing while the picture is open
        page.keyboard.press("Escape")
        assert page.evaluate("!document.querySelector('#large').open") and page.locator(".answers").count()
    assert len(store.judgements(texts.id).preferences) == 2
    store.close()


def test_every_page_is_shown_wide_and_narrow(tmp_path):
    rows = [
        {"item": f"item {place}", "system": system, "source": f"A question with <b> in {place}?", "output": text}
        for place, text in enumerate(TEXTS)
        for system in "AB"
    ]
    Image.new("RGB", (16, 9), (200, 30, 30)).save(tmp_path / "small.png")
    Image.new("RGB", (1500, 700), (30, 200, 30)).save(tmp_path / "large.png")
    drawn = [{"item": 1, "system": "A", "image": "small.png"}, {"item": 1, "system": "B", "image": "large.png"}]
    store = Store(tmp_path / "x.db", create=True)
    studies = [
        new_study(store, write_rows(tmp_path / "texts.jsonl", rows), raters=1),
        new_study(store, write_rows(tmp_path / "pairs.jsonl", rows), asked="pairwise", raters=1),
        new_study(store, write_rows(tmp_path / "drawn.jsonl", drawn), asked="pairwise", raters=1),
    ]
    raters = [(rater, token) for _, _, [(rater, token)] in studies]
    site = make_site()
    add_judge(site, store)
    with serving(site) as home, browser() as made:

        def desks(state, *tokens):
            assert {store.desk(rater).state for rater, _ in raters} == {state}
            inspect(made, [f"{home}/judge/enter/{token}" for token in tokens], home)

        texts, pairs, pictures = (token for _, token in raters)
        desks("ready", texts)
        works = [store.take(rater) for rater, _ in raters]
        desks("work", texts, pairs, pictures)
        for (study, _, _), (rater, _), desk in zip(studies, raters, works, strict=True):
            while desk.work is not None:
                desk = store.answer(rater, desk.work.assignment, {study.template.questions[0].name: 1.0})
        desks("finished", texts)
        own = [f"{home}/judge/a/{study.id}/results" for study, _, _ in studies[:2]]
        enter = [f"{home}/judge/enter/{admin}" for _, admin, _ in studies[:2]]
        inspect(made, [enter[0], own[0], enter[1], own[1], f"{home}/judge"], home)
        for state in ("paused", "closed"):
            for study, _, _ in studies:
                store.set_state(study.id, state)
            desks(state, texts)
        inspect(made, enter[:1], home)
        strange = ["/judge/enter/none", "/judge/a/1", "/judge/nothing"]
        inspect(made, [home + path for path in strange], home, refused=True)
    store.close()


def test_the_page_that_asks_for_a_token_is_shown_wide_and_narrow(tmp_path):
    store = Store(tmp_path / "x.db", create=True)
    site = make_site(token="t")
    add_judge(site, store)
    with serving(site) as home, browser() as made:
        inspect(made, [f"{home}/judge", f"{home}/judge?token=wrong"], home, refused=True)
        inspect(made, [f"{home}/judge?token=t", f"{home}/judge"], home)
    store.close()
