// Keys, and care with double taps. Without this file the page works all the same.
(() => {
  "use strict";
  const LULL = 300; // milliseconds in which a second tap on the last item is not taken for an answer to the next
  const desk = document.getElementById("desk");
  const notice = document.getElementById("notice");
  let since = -LULL;
  const early = () => performance.now() - since < LULL;
  const questions = () => [...desk.querySelectorAll("fieldset")];
  const answered = (question) => question.querySelector("input:checked") !== null;

  /** The question that keys answer: the one in focus, else the first without an answer, else the last. */
  const current = () => {
    const all = questions();
    return all.find((one) => !answered(one)) ?? all.find((one) => one.contains(document.activeElement)) ?? all.at(-1);
  };
  const mark = () => {
    const all = questions();
    const now = all.length > 1 && !all.every(answered) ? current() : null;
    for (const question of all) question.classList.toggle("now", question === now);
  };
  const say = (words) => {
    notice.textContent = words;
    notice.hidden = words === "";
  };

  document.addEventListener("click", (event) => {
    if (early() && event.target.closest("#desk .choices, #desk .next, #undo")) {
      event.preventDefault();
      event.stopPropagation();
    }
  }, true);
  document.addEventListener("change", mark);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("textarea, input:not([type=radio])")) return;
    const key = event.code === "Space" ? "Space" : event.key;
    const onControl = event.target.closest("button, a, summary") !== null;
    if (onControl && (key === "Space" || key === "Enter")) return; // what it does by itself
    let target = null;
    if (key === "u" || key === "U") target = document.getElementById("undo");
    else {
      const question = current();
      target = question?.querySelector(`[data-key="${CSS.escape(key)}"]`);
      if (!target && question && /^[1-9]$/.test(key)) target = question.querySelectorAll("[data-key]")[Number(key) - 1];
      if (!target && (key === "Enter" || key === "Space")) target = desk.querySelector('[data-key="Enter"]');
    }
    if (!target || target.disabled) return;
    event.preventDefault();
    if (early()) return;
    target.click();
    if (target.type === "radio") target.focus({ preventScroll: true });
  });

  desk.addEventListener("htmx:afterSwap", () => {
    since = performance.now();
    say("");
    desk.focus({ preventScroll: true });
    mark();
  });
  desk.addEventListener("htmx:sendError", () => say("This was not kept: there is no connection. Try again in a moment."));
  desk.addEventListener("htmx:responseError", (event) => {
    const page = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    say(page.querySelector("h1")?.textContent.trim() || "This was not kept. Try again in a moment.");
  });
  mark();
})();
