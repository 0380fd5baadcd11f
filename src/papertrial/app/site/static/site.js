// What htmx brings may hold figures: they are drawn once it is in its place. What a visitor has opened or moved stays so.
(() => {
  const folds = () => [...document.querySelectorAll("#live details")];
  const boxes = () => [...document.querySelectorAll("#live .scroll")];
  const boxed = () => [...document.querySelectorAll("#live input[type=checkbox]")];
  let open = new Set(), moved = [], chosen = new Set();
  document.addEventListener("htmx:beforeSwap", () => {
    open = new Set(folds().filter((fold) => fold.open).map((fold) => fold.querySelector("summary").textContent));
    moved = boxes().map((box) => box.scrollLeft);
    chosen = new Set(boxed().filter((box) => box.checked).map((box) => box.value));
  });
  document.addEventListener("htmx:afterSettle", () => {
    folds().forEach((fold) => { fold.open ||= open.has(fold.querySelector("summary").textContent); });
    boxes().forEach((box, index) => { box.scrollLeft = moved[index] || 0; });
    boxed().forEach((box) => { box.checked ||= chosen.has(box.value); });
    document.dispatchEvent(new Event("figures"));
  });
  const lost = (away) => () => document.body.classList.toggle("lost", away);
  document.addEventListener("htmx:sendError", lost(true));
  document.addEventListener("htmx:afterOnLoad", lost(false));
})();
