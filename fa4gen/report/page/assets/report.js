"use strict";
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  document.documentElement.classList.add("script");

  // ---- Charts: painted for the colours of the moment, drawn anew when those change ------------

  const DARK = window.matchMedia("(prefers-color-scheme: dark)");
  const SCALES = {
    light: {
      gain: [[0, "#f1f5fa"], [1, "#2a6db8"]],
      ratio: [[0, "#c4560d"], [0.5, "#f3f3f1"], [1, "#2a6db8"]],
      marks: ["#1b5eaa", "#b3470b", "#14613a", "#7b2d8b", "#8a6d00", "#52606d"],
    },
    dark: {
      gain: [[0, "#1d2732"], [1, "#4f97e6"]],
      ratio: [[0, "#e8853a"], [0.5, "#262e36"], [1, "#4f97e6"]],
      marks: ["#7db8ff", "#ffa869", "#8fe0b3", "#e0a3f0", "#f0d264", "#a3b0bd"],
    },
  };

  const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

  /** The colour of a scale at a position from 0 to 1, as three channels. */
  function mixed(scale, position) {
    const upper = Math.max(1, scale.findIndex(([stop]) => stop >= position));
    const [[low, from], [high, to]] = [scale[upper - 1], scale[upper]];
    const part = (position - low) / (high - low);
    const [a, b] = [channels(from), channels(to)];
    return a.map((value, i) => value + part * (b[i] - value));
  }

  /** Relative luminance, as WCAG 2 defines it. */
  function luminance(rgb) {
    const [r, g, b] = rgb.map((value) => {
      const share = value / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  /** Black or white, whichever stands out more. */
  const readable = (rgb) => {
    const light = luminance(rgb);
    return 1.05 / (light + 0.05) > (light + 0.05) / 0.05 ? "#ffffff" : "#000000";
  };

  /** The numbers of a heat map as a layer of their own, each readable on its cell. */
  function numbers(map, scale, font) {
    const cells = map.z.flatMap((row, i) => row.map((value, j) => ({ value, i, j })))
      .filter(({ value }) => value !== null);
    const position = (value) =>
      Math.min(1, Math.max(0, (value - map.zmin) / (map.zmax - map.zmin)));
    return {
      type: "scatter", mode: "text", hoverinfo: "skip", showlegend: false,
      xaxis: map.xaxis, yaxis: map.yaxis,
      x: cells.map(({ j }) => map.x[j]), y: cells.map(({ i }) => map.y[i]),
      text: cells.map(({ i, j }) => map.text[i][j]),
      textfont: { ...font, color: cells.map(({ value }) => readable(mixed(scale, position(value)))) },
    };
  }

  function painted(figure, printing) {
    const theme = DARK.matches && !printing ? SCALES.dark : SCALES.light;
    const style = getComputedStyle(document.body);
    const value = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const ink = printing ? "#000000" : value("--ink");
    const line = printing ? "#999999" : value("--line");
    const font = { family: style.fontFamily, size: 13, color: ink };
    const data = figure.data.flatMap((trace) => {
      if (trace.type !== "heatmap") {
        const color = theme.marks[trace.meta % theme.marks.length];
        const marker = { ...trace.marker, color };
        return [{ ...trace, marker, error_y: { ...trace.error_y, color } }];
      }
      const scale = theme[trace.meta];
      return [{ ...trace, text: null, colorscale: scale }, numbers(trace, scale, { ...font, size: 12.5 })];
    });
    const layout = { ...figure.layout, font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
    layout.hoverlabel = { font: { ...font, color: ink }, bgcolor: printing ? "#ffffff" : value("--panel"), bordercolor: line };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      layout[key] = { gridcolor: line, linecolor: line, tickfont: font, ...layout[key] };
      if (layout[key].title) layout[key].title = { font, ...layout[key].title };
    }
    return { data, layout };
  }

  const figures = Object.entries(JSON.parse(find("#charts").textContent));
  const CONFIG = { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function draw(printing = false) {
    for (const [id, figure] of figures) {
      const place = document.getElementById(id);
      const { data, layout } = painted(figure, printing);
      if (figure.widths) {
        const [least, most] = figure.widths;
        layout.width = Math.max(least, Math.min(most, place.clientWidth));
      }
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", figure.alt);
      Plotly.react(place, data, layout, CONFIG);
    }
  }
  draw();
  DARK.addEventListener("change", () => draw());
  let resized = 0;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => draw(), 150);
  });
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", () => draw());

  // ---- The table of problems -----------------------------------------------------------------

  const table = find("#table");
  const problems = all("tbody.problem", table);
  // Not the pipes: every kernel uses all of them, and the row has the one that binds.
  const words = new Map(problems.map((body) => {
    const parts = [body.rows[0], ...all(".changed, .facts, .warning", body)];
    return [body, parts.map((part) => part.textContent).join(" ").toLowerCase()];
  }));

  function show(body, open) {
    find(".detail", body).classList.toggle("shown", open);
    find("button.open", body).setAttribute("aria-expanded", String(open));
  }
  const shown = (body) => find(".detail", body).classList.contains("shown");

  table.addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    if (button) {
      const body = button.closest("tbody");
      show(body, !shown(body));
    }
  });

  const openAll = find("#open-all");
  openAll.addEventListener("click", () => {
    const visible = problems.filter((body) => !body.hidden);
    const open = !visible.every(shown);
    visible.forEach((body) => show(body, open));
    openAll.textContent = open ? "Close all" : "Open all";
  });

  const search = find("#search");
  function filter() {
    const given = search.value.toLowerCase().match(/"[^"]*"|\S+/g) || [];
    const wanted = given.map((word) => word.replaceAll('"', "")).filter(Boolean);
    let left = 0;
    for (const body of problems) {
      body.hidden = !wanted.every((word) => words.get(body).includes(word));
      left += !body.hidden;
    }
    const count = `${problems.length} problem${problems.length === 1 ? "" : "s"}`;
    find("#count").textContent = wanted.length ? `${left} of ${count}` : count;
    find("#nothing").hidden = left > 0;
  }
  search.addEventListener("input", filter);
  if (search.value) filter();

  const headings = all(":scope > thead th", table);
  const byText = new Intl.Collator("en", { numeric: true });

  function cellValue(body, column) {
    const cell = body.rows[0].cells[column];
    if (!("value" in cell.dataset)) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }

  /** Empty cells stay at the end, whichever way the others go. */
  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : byText.compare(a, b));
  }

  headings.forEach((heading, column) => {
    find("button", heading).addEventListener("click", () => {
      const first = heading.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((one) => one.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const keyed = problems.map((body, index) => ({ body, index, key: cellValue(body, column) }));
      keyed.sort((a, b) => compare(a.key, b.key, sign) || a.index - b.index);
      table.append(...keyed.map(({ body }) => body));
    });
  });

  // A link to a problem, #p12, opens it.
  function follow() {
    const body = document.getElementById(location.hash.slice(1));
    if (body && body.matches("tbody.problem")) show(body, true);
  }
  window.addEventListener("hashchange", follow);
  follow();
})();
