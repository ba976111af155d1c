"use strict";
(() => {
  const root = document.documentElement;
  const settings = { displaylogo: false, displayModeBar: false, responsive: true };

  // Colours are CSS variables in the figures, so that plots follow the page's theme.
  const themed = (node, style) => {
    if (typeof node === "string") {
      return node.startsWith("var(") ? style.getPropertyValue(node.slice(4, -1)).trim() : node;
    }
    if (Array.isArray(node)) return node.map((item) => themed(item, style));
    if (node === null || typeof node !== "object") return node;
    return Object.fromEntries(Object.entries(node).map(([key, item]) => [key, themed(item, style)]));
  };

  const draw = () => {
    const style = getComputedStyle(root);
    const family = getComputedStyle(document.body).fontFamily;
    for (const box of document.querySelectorAll("[data-figure]")) {
      const figure = themed(JSON.parse(document.getElementById(box.dataset.figure).textContent), style);
      figure.layout.font.family = family;
      figure.layout.hoverlabel.font.family = family;
      Plotly.react(box, figure.data, figure.layout, settings);
    }
  };
  if (document.querySelector("[data-figure]")) {
    draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    addEventListener("beforeprint", () => { root.dataset.theme = "light"; draw(); });
    addEventListener("afterprint", () => { delete root.dataset.theme; draw(); });
  }

  const cellValue = (row, index) => {
    const cell = row.cells[index];
    const marked = cell.querySelector("[data-value]");
    const text = (marked ? marked.dataset.value : cell.textContent).trim();
    const missing = text === "" || text === "–";
    return { missing, text, number: missing ? NaN : Number(text) };
  };
  const byValue = (index, sign) => (left, right) => {
    const [a, b] = [cellValue(left, index), cellValue(right, index)];
    if (a.missing || b.missing) return a.missing - b.missing;
    const numeric = !Number.isNaN(a.number) && !Number.isNaN(b.number);
    return sign * (numeric ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true }));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => {
      head.querySelector("button").addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(byValue(index, ascending ? 1 : -1)));
      });
    });
  }

  if (navigator.clipboard) {
    for (const button of document.querySelectorAll(".copy")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
    }
  }

  // While the search runs the page loads again; what was opened and paused is kept.
  const refresh = document.querySelector('meta[name="refresh"]');
  const pause = document.getElementById("pause");
  if (refresh && pause) {
    const key = `report ${location.pathname}`;
    const kept = JSON.parse(sessionStorage.getItem(key) ?? '{"open":[],"paused":false}');
    const opened = [...document.querySelectorAll("details")];
    kept.open.forEach((index) => { if (opened[index]) opened[index].open = true; });
    const show = (paused) => {
      pause.setAttribute("aria-pressed", String(paused));
      pause.textContent = paused ? "Paused" : "Pause";
    };
    let paused = kept.paused;
    const keep = () => {
      const open = opened.flatMap((box, index) => (box.open ? [index] : []));
      sessionStorage.setItem(key, JSON.stringify({ open, paused }));
    };
    show(paused);
    pause.hidden = false;
    pause.addEventListener("click", () => { paused = !paused; show(paused); keep(); });
    setInterval(() => { if (!paused) { keep(); location.reload(); } }, Number(refresh.content) * 1000);
  }
})();
