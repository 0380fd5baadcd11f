// What htmx brings may hold figures: they are drawn once it is in its place. What a visitor has opened or moved stays so.
(() => {
  const folds = () => [...document.querySelectorAll("#live details")];
  const boxes = () => [...document.querySelectorAll("#live .scroll")];
  let open = new Set(), moved = [];
  document.addEventListener("htmx:beforeSwap", () => {
    open = new Set(folds().filter((fold) => fold.open).map((fold) => fold.querySelector("summary").textContent));
    moved = boxes().map((box) => box.scrollLeft);
  });
  document.addEventListener("htmx:afterSettle", () => {
    folds().forEach((fold) => { fold.open ||= open.has(fold.querySelector("summary").textContent); });
    boxes().forEach((box, index) => { box.scrollLeft = moved[index] || 0; });
    document.dispatchEvent(new Event("figures"));
  });
  const lost = (away) => () => document.body.classList.toggle("lost", away);
  document.addEventListener("htmx:sendError", lost(true));
  document.addEventListener("htmx:afterOnLoad", lost(false));
})();
