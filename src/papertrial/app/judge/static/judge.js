// Keys, lost connections, large pictures, and care with double taps. Without this file the page works all the same.
(() => {
  "use strict";
  const LULL = 300; // milliseconds in which a second tap on the last item is not taken for an answer to the next
  const MOMENT = 800; // and in which 1 may become 10
  const desk = document.getElementById("desk");
  const notice = document.getElementById("notice");
  const large = document.getElementById("large");
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

  // what was sent last, and is not known to be kept
  let sent = null;
  const again = notice.querySelector("button");
  /** Beside the answers, so that none of them moves: above in the bar at the foot of the screen, else below. */
  const say = (words, retry = false) => {
    const bar = desk.querySelector(".answers");
    if (bar && getComputedStyle(bar).position === "sticky") bar.prepend(notice);
    else if (bar) bar.querySelector(".more").before(notice);
    else desk.append(notice);
    notice.querySelector("span").textContent = words;
    notice.hidden = words === "";
    again.hidden = !retry;
    if (words) notice.scrollIntoView({ block: "nearest" });
  };
  const resend = () => {
    if (sent?.form.isConnected) sent.form.requestSubmit(sent.by);
  };
  again.addEventListener("click", resend);
  addEventListener("online", resend);
  document.addEventListener("submit", (event) => {
    if (desk.contains(event.target)) sent = { form: event.target, by: event.submitter };
  }, true);

  document.addEventListener("click", (event) => {
    if (early() && event.target.closest("#desk .choices, #desk .next, #desk .more button, #undo")) {
      event.preventDefault();
      event.stopPropagation();
    }
    const picture = event.target.closest("#desk .enlarge img, #desk .enlarge")?.closest(".enlarge");
    if (!picture || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    enlarge(picture.querySelector("img"));
  }, true);
  document.addEventListener("change", mark);

  /** At its own size or, where there is room for more, as large as the screen. */
  const enlarge = (picture) => {
    const shown = large.querySelector("img");
    shown.src = picture.src;
    shown.alt = picture.alt.replace("; enlarge it", "");
    shown.className = picture.className;
    const { naturalWidth: width, naturalHeight: height } = picture;
    const times = Math.max(1, Math.min((0.94 * innerWidth) / width, (0.8 * innerHeight) / height));
    shown.width = Math.round(width * times);
    shown.height = Math.round(height * times);
    large.showModal();
  };
  large.addEventListener("click", (event) => {
    if (event.target === large) large.close(); // the ground around it
  });

  // keys of several characters, such as 1 and 0 for 10: what was typed of one
  let typed = "", timer = 0, meant = null;
  const forget = () => {
    clearTimeout(timer);
    typed = "";
    meant?.classList.remove("meant");
    meant = null;
  };
  const choose = (target) => {
    forget();
    if (!target || target.disabled || early()) return;
    target.click();
    if (target.type === "radio") target.focus({ preventScroll: true });
  };
  const keysOf = (target) => target.dataset.key.split(" ");

  /** Take a key for an answer: at once where no longer key begins as it does, else after a moment, or with Enter. */
  const answer = (question, key) => {
    const all = [...question.querySelectorAll("[data-key]")];
    const begins = (start) => all.filter((one) => keysOf(one).some((own) => own === start || (/^-?\d+$/.test(own) && own.startsWith(start))));
    let start = typed + key;
    if (!begins(start).length) start = key; // it belongs to nothing that was begun
    forget();
    const able = begins(start);
    if (!able.length) return false;
    const exact = able.find((one) => keysOf(one).includes(start));
    if (exact && able.length === 1) choose(exact);
    else {
      typed = start;
      meant = exact?.closest("label") ?? exact;
      meant?.classList.add("meant");
      timer = setTimeout(() => choose(exact), MOMENT);
    }
    return true;
  };

  document.addEventListener("keydown", (event) => {
    const away = event.ctrlKey || event.metaKey || event.altKey || event.repeat || large.open;
    if (event.key === "Escape" && event.target.matches("#remark")) return desk.focus({ preventScroll: true });
    if (away || event.target.matches("textarea, input:not([type=radio])")) return;
    const key = event.code === "Space" ? "Space" : event.key;
    if (meant && (key === "Enter" || key === "Space")) {
      event.preventDefault();
      return choose(meant.querySelector("input") ?? meant);
    }
    const onControl = event.target.closest("button, a, summary") !== null;
    if (onControl && (key === "Space" || key === "Enter")) return; // what it does by itself
    const more = document.getElementById("more");
    if (more && (key === "r" || key === "R")) {
      event.preventDefault();
      more.open = true;
      more.querySelector("textarea").focus();
      return;
    }
    const question = current();
    if (question && !early() && answer(question, key)) return event.preventDefault();
    let target = null;
    if (key === "u" || key === "U") target = document.getElementById("undo");
    else if (key === "Enter" || key === "Space") target = desk.querySelector('[data-key="Enter"]');
    if (!target || target.disabled) return;
    event.preventDefault();
    choose(target);
  });

  desk.addEventListener("htmx:afterSwap", () => {
    since = performance.now();
    sent = null;
    forget();
    say("");
    desk.focus({ preventScroll: true });
    mark();
  });
  const lost = () => say("This was not kept: there is no connection.", true);
  desk.addEventListener("htmx:sendError", lost);
  desk.addEventListener("htmx:timeout", lost);
  desk.addEventListener("htmx:responseError", (event) => {
    const page = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    const mends = event.detail.xhr.status >= 500;
    if (!mends) sent = null;
    say(page.querySelector("h1")?.textContent.trim() || "This was not kept. Try again in a moment.", mends);
  });
  mark();
})();
