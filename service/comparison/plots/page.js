"use strict";
// Draws the comparison that the page carries. Names are text: none goes into the page as HTML, and what plotly.js
// would read as markup in them is escaped.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { groups, curves, matrices, scores } = data;
  // Okabe and Ito (2008), for readers of all colour vision; the yellow, pale on white, is left out.
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const MOST_NAMED = 24;
  // Of embeddings in single precision: what is smaller than this share of the largest says nothing.
  const ROUNDING = 1e-7;
  const main = document.getElementById("figures");
  const drawn = [];

  const colour = (i) => COLOURS[i % COLOURS.length];
  const dash = (i) => DASHES[Math.floor(i / COLOURS.length) % DASHES.length];
  const faint = (i) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour(i).slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},0.18)`;
  };
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  // Names of jobs differ at their ends, too, so what is too long lacks its middle.
  const short = (text, most = 42) =>
    (text.length > most ? `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}` : text);
  const number = (value) => value.toLocaleString("en-US");

  function make(tag, properties = {}, ...children) {
    const { dataset, ...others } = properties;
    const made = Object.assign(document.createElement(tag), others);
    Object.assign(made.dataset, dataset);
    made.append(...children);
    return made;
  }

  const labelled = (text, control) => make("label", {}, text, control);
  function menu(options, change) {
    const made = make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
    made.addEventListener("change", change);
    return made;
  }
  function box(change) {
    const made = make("input", { type: "checkbox" });
    made.addEventListener("change", change);
    return made;
  }

  function section(title, id) {
    const figure = make("div", { className: "figure", id });
    const controls = make("div", { className: "controls" });
    const note = make("p", { className: "note" });
    main.append(make("section", {}, make("h2", {}, title), controls, figure, note));
    return { figure, controls, note };
  }

  function draw(figure, name, traces, layout) {
    const narrow = figure.clientWidth < 520;
    const whole = {
      font: { family: "Liberation Sans, Arial, sans-serif", size: narrow ? 11 : 13, color: "#1a1a1a" },
      paper_bgcolor: "#fff",
      plot_bgcolor: "#fff",
      hoverlabel: { namelength: -1 },
      ...layout,
      width: figure.clientWidth,
    };
    const buttons = ["select2d", "lasso2d", "autoScale2d", "toImage"];
    const config = { displaylogo: false, displayModeBar: narrow ? false : "hover", modeBarButtonsToRemove: buttons };
    figure.dataset.name = name;
    return Plotly.react(figure, traces, whole, config);
  }

  function download(figure) {
    const made = make("button", { type: "button", title: "As vector graphics" }, "SVG");
    made.addEventListener("click", async () => {
      const { width, height } = figure.getBoundingClientRect();
      const filename = figure.dataset.name.replace(/[^A-Za-z0-9._-]+/g, "-");
      const text = decodeURIComponent((await Plotly.toImage(figure, { format: "svg", width, height })).split(",", 2)[1] || "");
      const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
      make("a", { href: address, download: `${filename}.svg` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
    });
    return made;
  }

  const axis = (title, more = {}) => ({
    title: { text: plain(title), standoff: 6 }, gridcolor: "#e3e3e3", linecolor: "#666", ticks: "outside", automargin: true,
    exponentformat: "power", zeroline: false, ...more,
  });
  // A plot of a fixed height with the names of its lines below, where they take nothing from its width.
  function framed(figure, plot, traces, top) {
    const names = traces.filter((trace) => trace.showlegend !== false).map((trace) => trace.name);
    const named = names.length > 1 && names.length <= MOST_NAMED;
    const widest = Math.max(...names.map((name) => 60 + 7 * name.length), 1);
    const rows = named ? Math.ceil(names.length / Math.max(1, Math.floor((figure.clientWidth - 70) / widest))) : 0;
    return {
      height: top + plot + 62 + 21 * rows, margin: { l: 60, r: 12, t: top, b: 62 + 21 * rows }, hovermode: "closest",
      showlegend: named,
      legend: { orientation: "h", x: 0, y: -58 / plot, yanchor: "top", font: { size: 12 }, entrywidth: widest - 45 },
    };
  }

  // --- metrics over steps

  function spread(lines) {
    const found = new Map();
    for (const [, , at, values] of lines)
      curves.steps[at].forEach((step, i) => {
        if (values[i] !== null) found.set(step, [...(found.get(step) || []), values[i]]);
      });
    const kept = [...found].filter(([, values]) => values.length === lines.length).sort((a, b) => a[0] - b[0]);
    const mean = kept.map(([, values]) => values.reduce((a, b) => a + b, 0) / values.length);
    const deviation = kept.map(([, values], i) =>
      Math.sqrt(values.reduce((sum, value) => sum + (value - mean[i]) ** 2, 0) / (values.length - 1)));
    return { steps: kept.map(([step]) => step), mean, deviation };
  }

  // The mean of a point and those around it: as many before as after, fewer at the ends.
  function smooth(values, width) {
    const half = Math.floor(width / 2);
    return values.map((value, i) => {
      if (value === null || half === 0) return value;
      const near = Math.min(half, i, values.length - 1 - i);
      const around = values.slice(i - near, i + near + 1).filter((one) => one !== null);
      return around.reduce((a, b) => a + b, 0) / around.length;
    });
  }

  // The places of each unbroken piece of a band: a logarithmic axis has no place for its part at zero and below.
  function bands(middle, half, logarithmic) {
    const pieces = [];
    middle.forEach((value, i) => {
      if (logarithmic && value - half[i] <= 0) return;
      const last = pieces[pieces.length - 1];
      if (last && last[last.length - 1] === i - 1) last.push(i);
      else pieces.push([i]);
    });
    return pieces;
  }

  function lines() {
    const keys = Object.keys(curves.metrics);
    if (keys.length === 0) return;
    const { figure, controls, note } = section("Metrics over steps", "lines");
    const metric = menu(keys.map((key) => [key, key]), show);
    const seeded = keys.some((key) => new Set(curves.metrics[key].lines.map(([group]) => group)).size
      < curves.metrics[key].lines.length);
    const way = menu([["mean", "mean ± standard deviation over seeds"], ["each", "each job"]], show);
    const window = menu([[1, "none"], [5, "5 points"], [15, "15 points"], [45, "45 points"]], show);
    const logY = box(show), logX = box(show);
    const filter = make("input", { type: "search", placeholder: "part of a name" });
    filter.addEventListener("input", show);
    controls.append(labelled("Metric", metric));
    if (seeded) controls.append(labelled("Lines", way));
    controls.append(labelled("Smoothing", window), labelled("Log value", logY), labelled("Log step", logX));
    if (groups.length > 1) controls.append(labelled("Only", filter));
    controls.append(download(figure));

    function show() {
      const { unit, lines } = curves.metrics[metric.value];
      const asked = filter.value.toLowerCase();
      const width = Number(window.value);
      const by = new Map();
      for (const line of lines)
        if (groups[line[0]].name.toLowerCase().includes(asked)) by.set(line[0], [...(by.get(line[0]) || []), line]);
      const traces = [];
      let cut = false;
      for (const [group, own] of by) {
        const name = groups[group].name;
        const line = { color: colour(group), dash: dash(group), width: 2 };
        if (seeded && way.value === "mean" && own.length > 1) {
          const { steps, mean, deviation } = spread(own);
          const [middle, half] = [smooth(mean, width), smooth(deviation, width)];
          const about = { legendgroup: group, hoverinfo: "skip", showlegend: false, mode: "lines", line: { width: 0 } };
          const pieces = bands(middle, half, logY.checked);
          cut = cut || pieces.reduce((sum, piece) => sum + piece.length, 0) < middle.length;
          for (const piece of pieces) traces.push(
            { ...about, x: piece.map((i) => steps[i]), y: piece.map((i) => middle[i] - half[i]) },
            { ...about, x: piece.map((i) => steps[i]), y: piece.map((i) => middle[i] + half[i]), fill: "tonexty", fillcolor: faint(group) },
          );
          traces.push(
            { x: steps, y: middle, customdata: half, line, mode: "lines", legendgroup: group,
              name: `${plain(short(name))} (n=${own.length})`,
              hovertemplate: `${plain(name)}<br>step %{x:,}: %{y:.5g} ± %{customdata:.3g}<extra>n=${own.length}</extra>` },
          );
          continue;
        }
        own.forEach(([, seed, at, values], i) => traces.push({
          x: curves.steps[at], y: smooth(values, width), line, mode: "lines", legendgroup: group,
          name: plain(short(name)), showlegend: i === 0, opacity: own.length > 1 ? 0.75 : 1,
          hovertemplate: `${plain(name)}<br>step %{x:,}: %{y:.5g}<extra>seed ${seed}</extra>`,
        }));
      }
      for (const trace of traces) if (trace.x.length === 1) trace.mode = "markers";
      note.textContent = told(by.size, cut);
      return draw(figure, metric.value, traces, {
        ...framed(figure, 330, traces, 12), uirevision: metric.value,
        xaxis: axis("step", logX.checked ? { type: "log" } : { tickformat: "," }),
        yaxis: axis(unit ? `${metric.value} [${unit}]` : metric.value, logY.checked ? { type: "log" } : {}),
      });
    }

    function told(count, cut) {
      const [shown, all] = curves.jobs, [thinned, every] = curves.thinned;
      const said = [thinned ? `${number(thinned)} of ${number(every)} lines are thinned: the first point of every k steps and the last, `
        + `at most ${number(curves.points + 1)} points a line.` : "Every point is shown."];
      if (seeded) said.push("A band is one standard deviation of the sample, n seeds, at steps that all of them have.");
      if (cut) said.push("On the logarithmic axis a band is left out where it reaches down to zero.");
      if (all > shown) said.push(`Lines are of the first ${number(shown)} of ${number(all)} jobs, the first seeds first; the others are left out.`);
      if (count > MOST_NAMED) said.push(`${count} lines are too many to name: point at one, or type a part of names.`);
      return said.join(" ");
    }
    drawn.push(show);
  }

  // --- spectra and matrices

  function decoded(record) {
    if (record.z === undefined && record.cells) {
      const bytes = atob(record.cells), { side } = record;
      record.z = Array.from({ length: side }, (_, i) =>
        Float32Array.from({ length: side }, (_, j) => {
          const level = bytes.charCodeAt(i * side + j);
          return level === 255 ? NaN : (level - 127) / 127;
        }));
    }
    return record.z;
  }

  function records() {
    const { steps, panels } = matrices;
    if (panels.length === 0) return;
    const { controls, note, figure: pair } = section("Spectra and correlation matrices", "records");
    pair.className = "pair";
    const spectra = make("div", { className: "figure", id: "spectra" });
    const heatmaps = make("div", { className: "figure", id: "heatmaps" });
    pair.append(spectra, heatmaps);
    const slider = make("input", { type: "range", min: 0, max: steps.length - 1, step: 1, value: steps.length - 1, id: "step" });
    const said = make("output", {});
    const kinds = { spectrum: "of C", spectrum_a: "of view a", spectrum_b: "of view b" };
    const spectrum = menu(Object.entries(kinds), show);
    const range = menu([[1, "±1"], [0.3, "±0.3"], [0.1, "±0.1"]], show);
    const logY = box(show), logX = box(show);
    logY.checked = true;
    slider.addEventListener("input", show);
    controls.append(labelled("Step", slider), said, labelled("Spectrum", spectrum), labelled("Log value", logY),
      labelled("Log rank", logX), labelled("Colours", range), make("span", {}, "Spectra ", download(spectra)),
      make("span", {}, "Matrices ", download(heatmaps)));
    const several = panels.some((one, i) => panels.findIndex((other) => other.group === one.group) < i);

    function show() {
      const at = Number(slider.value), step = steps[at];
      said.textContent = `${number(step)} (${at + 1} of ${steps.length})`;
      slider.setAttribute("aria-valuetext", `step ${step}`);
      const now = panels.map((one) => (one.at[at] === null ? null : one.records[one.at[at]]));
      return Promise.all([showSpectra(now, step), showHeatmaps(now, step)]);
    }

    function showSpectra(now, step) {
      const traces = panels.flatMap((panel, i) => {
        const found = now[i] && now[i].spectra && now[i].spectra[spectrum.value];
        if (!found) return [];
        const mine = several ? i : panel.group, least = found[1][0] * ROUNDING;
        return [{
          x: found[0], y: logY.checked ? found[1].map((value) => (value > least ? value : null)) : found[1], mode: "lines",
          name: plain(short(panel.name, 34)), line: { color: colour(mine), dash: dash(mine), width: 2 },
          hovertemplate: `${plain(panel.name)}, step ${number(now[i].step)}<br>rank %{x}: %{y:.4g}<extra></extra>`,
        }];
      });
      const value = spectrum.value === "spectrum" ? "singular value of C" : `eigenvalue, C ${kinds[spectrum.value].slice(3)}`;
      return draw(spectra, `${spectrum.value}-step-${step}`, traces, {
        ...framed(spectra, 300, traces, 34),
        title: { text: `Spectra at step ${number(step)}`, x: 0.02, font: { size: 14 } },
        xaxis: axis("rank", logX.checked ? { type: "log" } : {}),
        yaxis: axis(value, logY.checked ? { type: "log" } : { rangemode: "tozero" }),
      });
    }

    function showHeatmaps(now, step) {
      const room = heatmaps.clientWidth;
      const rows = Math.ceil(panels.length / Math.max(1, Math.floor(room / (room < 520 ? 160 : 190))));
      const columns = Math.ceil(panels.length / rows);
      const size = Math.min(360, (room - 70) / columns), tall = size + 34;
      const height = rows * tall + 42;
      const layout = {
        height, margin: { l: 8, r: 62, t: 34, b: 8 }, annotations: [], plot_bgcolor: "#9a9a9a",
        title: { text: `C at step ${number(step)}`, x: 8 / room, xanchor: "left", font: { size: 14 } },
      };
      const traces = panels.map((panel, i) => {
        const [column, row] = [i % columns, Math.floor(i / columns)];
        const [inner, below] = [room - 70, height - 42];
        const [left, top] = [column * size / inner, 1 - row * tall / below];
        const end = i === 0 ? "" : String(i + 1), record = now[i];
        const domain = { x: [left, left + (size - 8) / inner], y: [top - (size + 26) / below, top - 34 / below] };
        const bare = { showticklabels: false, ticks: "", showgrid: false, zeroline: false, linecolor: "#999", mirror: true };
        layout[`xaxis${end}`] = { ...bare, domain: domain.x, anchor: `y${end}` };
        layout[`yaxis${end}`] = { ...bare, domain: domain.y, anchor: `x${end}`, autorange: "reversed" };
        const lines = [short(panel.name, Math.floor(size / 7)), under(record, step)];
        layout.annotations.push({
          text: lines.map(plain).join("<br>"), showarrow: false, x: left, y: domain.y[1], xref: "paper", yref: "paper",
          xanchor: "left", yanchor: "bottom", align: "left", font: { size: 11 }, hovertext: plain(panel.name),
        });
        return {
          type: "heatmap", z: (record && decoded(record)) || [[null]], xaxis: `x${end}`, yaxis: `y${end}`, zsmooth: false,
          x0: 0, y0: 0, dx: (record && record.apart) || 1, dy: (record && record.apart) || 1,
          zmin: -range.value, zmax: Number(range.value), showscale: i === 0,
          colorscale: [[0, "#053061"], [0.25, "#4393c3"], [0.5, "#f7f7f7"], [0.75, "#d6604d"], [1, "#67001f"]],
          colorbar: { title: { text: "C" }, thickness: 12, len: Math.min(1, 300 / height), x: 1.01, y: 1, yanchor: "top" },
          hovertemplate: `${plain(panel.name)}<br>a %{y}, b %{x}: %{z:.2f}<extra></extra>`,
        };
      });
      return draw(heatmaps, `correlation-step-${step}`, traces, layout);
    }

    function under(record, step) {
      if (!record) return "no record yet";
      const parts = record.step === step ? [] : [`step ${number(record.step)}`];
      if (!record.cells) parts.push("no file here");
      else parts.push(`d ${number(record.dim)}`, ...(record.said ? [record.said] : []));
      return parts.join(", ");
    }

    const [shown, all] = matrices.jobs, [kept, every] = matrices.kept;
    const told = ["Rows are features of view a, columns of view b. C is kept to 1/127."];
    if (all > shown) told.push(`${shown} of ${number(all)} jobs with records are shown, the first seeds first; the others are left out.`);
    if (every > kept) told.push(`${kept} of ${number(every)} steps are kept, evenly spread.`);
    if (panels.some((panel) => panel.records.some((record) => record.gaps))) told.push("Grey entries are no numbers.");
    if (panels.some((panel) => panel.records.some((record) => !record.cells)))
      told.push("Of records without a file, this host does not have it, or it cannot be read.");
    note.textContent = told.join(" ");
    drawn.push(show);
  }

  // --- scores

  function whiskers() {
    if (scores.length === 0) return;
    const { figure, controls, note } = section("Evaluations", "whiskers");
    const measure = menu(scores.map((row, i) => [i, row.title]), show);
    controls.append(labelled("Score", measure), download(figure));

    function show() {
      const row = scores[Number(measure.value)], found = row.backbones;
      const room = figure.clientWidth < 520 ? 22 : 46;
      const ticks = found.map((_, i) => i), names = found.map((one) => plain(short(one.name, room)));
      const single = found.flatMap((one, i) => (one.points.length > 1 ? one.points.map((value) => [value, i + 0.25]) : []));
      const traces = [
        { type: "scatter", mode: "markers", name: "single jobs",
          x: single.map(([value]) => value), y: single.map(([, place]) => place),
          marker: { color: "#56B4E9", size: 7, line: { color: "#0072B2", width: 1 } },
          hovertemplate: "%{x:.2f} %<extra></extra>" },
        { type: "scatter", mode: "markers", name: "mean ± standard deviation",
          x: found.map((one) => one.mean), y: ticks, marker: { color: "#0072B2", size: 9 },
          error_x: { type: "data", array: found.map((one) => one.deviation || 0), color: "#0072B2", thickness: 2, width: 6 },
          customdata: found.map((one) => (one.deviation === null ? `n=${one.n}` : `± ${one.deviation.toFixed(2)} (n=${one.n})`)),
          hovertemplate: "%{x:.2f} % %{customdata}<extra></extra>" },
      ];
      const told = found.map((one, i) => [one.published, i]).filter(([value]) => value !== null);
      if (told.length > 0) traces.push({
        type: "scatter", mode: "markers", name: "published", x: told.map(([value]) => value), y: told.map(([, i]) => i),
        marker: { color: "#D55E00", size: 11, symbol: "diamond-open", line: { width: 2 } },
        hovertemplate: "published: %{x:.2f} %<extra></extra>",
      });
      note.textContent = "A whisker is one standard deviation of the sample; n is in the tooltip and in the table."
        + (row.left_out ? ` ${number(row.left_out)} more backbones are left out.` : "");
      return draw(figure, `${row.title}`, traces, {
        height: 130 + 44 * found.length, margin: { l: 8, r: 14, t: 44, b: 46 }, hovermode: "closest",
        showlegend: true, legend: { orientation: "h", x: 0, xanchor: "left", xref: "container", y: 1, yref: "container", yanchor: "top" },
        xaxis: axis(`${row.score} [%]`),
        yaxis: axis("", { tickvals: ticks, ticktext: names, range: [found.length - 0.4, -0.6], title: undefined }),
      });
    }
    drawn.push(show);
  }

  lines();
  records();
  whiskers();
  if (drawn.length === 0) main.append(make("p", {}, "There is nothing to draw yet: no metric, no record, no score."));
  const all = () => Promise.all(drawn.map((show) => show()));
  let later;
  window.addEventListener("resize", () => {
    clearTimeout(later);
    later = setTimeout(all, 150);
  });
  all().then(() => { document.body.dataset.drawn = "yes"; });
})();
