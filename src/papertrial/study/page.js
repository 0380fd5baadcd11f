// Draws the figures in the colours of the page's style, and again when those change or the page goes to paper.
(() => {
  const root = document.documentElement;

  const coloured = (value, style) => {
    if (typeof value === "string") {
      return value.startsWith("var(--") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((entry) => coloured(entry, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, coloured(entry, style)]));
  };

  const draw = () => {
    const style = getComputedStyle(root);
    const held = [...document.querySelectorAll("script.plots")].map((script) => JSON.parse(script.textContent));
    for (const [name, figure] of Object.entries(Object.assign({}, ...held))) {
      const { data, layout } = coloured(figure, style);
      Plotly.react(name, data, layout, { displayModeBar: false, responsive: true });
      if (root.classList.contains("paper")) Plotly.Plots.resize(name);
    }
  };

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((fold) => { fold.open = true; });
    root.classList.add("paper");
    draw();
  });
  addEventListener("afterprint", () => {
    closed.forEach((fold) => { fold.open = false; });
    root.classList.remove("paper");
    draw();
  });
  document.addEventListener("toggle", (event) => {
    event.target.querySelectorAll(".plot").forEach((plot) => Plotly.Plots.resize(plot));
  }, true);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("figures", draw);
  draw();
})();
