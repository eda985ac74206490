// Spectra, trainings and what a monitor measured.

function drawSpectra() {
  const found = ofPoint(content.spectra).map(unpack);
  at("spectra-section").hidden = found.length === 0;
  at("spectra").replaceChildren();
  return Promise.all(found.map(drawSpectrum));
}

function drawSpectrum(spectrum, number) {
  const box = make("div");
  const plot = make("div", { class: "plot short", role: "img", "aria-label": `Spectral density of the ${spectrum.title}; the numbers are in the table beside it.` });
  const side = make("div");
  const command = make("div", { class: "command" });
  showCommand(command, spectrum.run);
  const button = make("button", { type: "button", onclick: () => spectrumCsv(spectrum) }, "Numbers (CSV)");
  box.append(make("h3", {}, `${spectrum.title}: ${spectrum.loss_of}`), make("div", { class: "pair even" }, plot, side), button, command);
  at("spectra").append(box);
  side.append(criteriaTable(spectrum));
  const density = spectrum.density;
  const traces = density ? densityTraces(density) : [];
  if (spectrum.eigenvalues) {
    const { names, values, residuals } = spectrum.eigenvalues;
    for (const [sign, color, symbol, name] of [[1, "#0072b2", "triangle-up", "positive eigenvalues"], [-1, "#d55e00", "triangle-down", "negative eigenvalues"]]) {
      const chosen = values.map((_, n) => n).filter((n) => Math.sign(values[n]) === sign);
      if (!chosen.length) continue;
      const level = density ? Math.max(...density.mean) * 2 : 1;
      traces.push({ type: "scatter", mode: "markers", x: chosen.map((n) => values[n]), y: chosen.map(() => level), marker: { color, symbol, size: 11 }, name, hoverinfo: "text", hovertext: chosen.map((n) => `${names[n]}: λ = ${text(values[n])}, residual ${text(residuals[n], 2)}`) });
    }
  }
  plot.id = `spectrum-${number}`;
  return Plotly.newPlot(plot, traces, DENSITY_LAYOUT, { ...CONFIG, scrollZoom: false });
}

const DENSITY_LAYOUT = {
  font: FONT, margin: { l: 62, r: 10, t: 8, b: 84 }, legend: { orientation: "h", y: -0.3 }, hovermode: "closest",
  xaxis: { title: { text: "eigenvalue λ", standoff: 6 }, zerolinecolor: "#444" }, yaxis: { type: "log", title: { text: "share of eigenvalues per λ" }, exponentformat: "power", gridcolor: "#e8ebef" },
};

/** Mean of a density and its range over the random vectors. */
function densityTraces(density, name = "density", color = "#000000") {
  // One eigenvalue has weight 1/D: what is far below is the tail of the broadening.
  const least = 1e-3 / (density.size * density.width * Math.sqrt(2 * Math.PI));
  const cut = (values) => values.map((v) => Math.max(v, least));
  return [
    { type: "scatter", x: [...density.points, ...[...density.points].reverse()], y: [...cut(density.high), ...cut(density.low).reverse()], fill: "toself", fillcolor: `${color}2e`, line: { width: 0 }, hoverinfo: "skip", name: `${name}, range over ${density.probes} random vectors` },
    { type: "scatter", x: density.points, y: cut(density.mean), line: { color, width: 1.4 }, name: `${name}, mean` },
  ];
}

/** Densities of the block of one layer, with its largest eigenvalues; outliers are filled. */
function drawBlock(item, layer, plot) {
  const column = (name) => item.columns.indexOf(name);
  const blocks = item.blocks.filter((block) => block.layer === layer);
  const traces = blocks.flatMap((block, k) => {
    const name = block.operator.replace("_", "-");
    const color = COLORS[k % COLORS.length];
    const row = item.rows.find((r) => r[column("operator")] === block.operator && r[column("layer")] === layer);
    const outliers = row[column("outliers")];
    const level = Math.max(...block.density.mean) * 2 ** (k + 1);
    const about = outliers === null ? "outliers not counted" : `outliers: ${outliers}`;
    return [...densityTraces(block.density, name, color), {
      type: "scatter", mode: "markers", name: `${name}, largest eigenvalues (${about})`, x: block.eigenvalues, y: block.eigenvalues.map(() => level),
      marker: { size: 10, color, symbol: block.eigenvalues.map((_, n) => (outliers !== null && n < outliers ? "triangle-up" : "triangle-up-open")) },
      hoverinfo: "text", hovertext: block.eigenvalues.map((v, n) => `${name}: λ${n + 1} = ${text(v)}, residual ${text(block.residuals[n], 2)}${outliers !== null && n < outliers ? ", outlier" : ""}`),
    }];
  });
  plot.setAttribute("aria-label", `Spectral density of the block of ${layer}; ${traces.filter((t) => t.mode === "markers").map((t) => t.name).join("; ")}.`);
  return Plotly.react(plot, traces, DENSITY_LAYOUT, { ...CONFIG, scrollZoom: false });
}

function criteriaTable(spectrum) {
  const measured = (m) => `${text(m.value)}${m.error === null ? "" : ` ± ${text(m.error, 2)}`}`;
  const rows = spectrum.criteria.map((m) => [
    make("span", { class: "label", title: m.says }, m.title),
    make("span", { class: m.applies ? "" : "not-applicable" }, m.applies ? measured(m) : `(${measured(m)})`), m.why || m.says,
  ]);
  if (spectrum.trace) rows.unshift(["trace", measured(spectrum.trace), "Sum of all eigenvalues."]);
  if (spectrum.eigenvalues) {
    const [low, high] = extent(spectrum.eigenvalues.values);
    rows.unshift(["λmax", text(high), "Sharpest curvature at θ."], ["λmin", text(low), "Most negative curvature at θ."]);
  }
  if (spectrum.type) rows.push(["type", spectrum.type, ""]);
  return makeTable(["quantity", "value ± standard error", "what it is"], rows);
}

function spectrumCsv(spectrum) {
  const rows = [];
  if (spectrum.density) spectrum.density.points.forEach((p, n) => rows.push(["density", "", p, spectrum.density.mean[n], spectrum.density.low[n], spectrum.density.high[n]]));
  if (spectrum.eigenvalues) spectrum.eigenvalues.values.forEach((v, n) => rows.push(["eigenvalue", spectrum.eigenvalues.names[n], v, spectrum.eigenvalues.residuals[n], "", ""]));
  download("spectrum.csv", ["kind", "name", "lambda", "density_or_residual", "density_low", "density_high"], rows);
}

/** The epoch of a θ, of which E=30 is named so; null of others. */
const epochOf = (point) => (/^E=\d+$/.test(point) ? Number(point.slice(2)) : null);

function drawTrainings() {
  const found = ofNetwork(content.trainings).map(unpack);
  at("trainings-section").hidden = found.length === 0;
  at("trainings").replaceChildren();
  return Promise.all(found.map(drawTraining));
}

function drawTraining(training) {
  const box = make("div");
  const command = make("div", { class: "command" });
  showCommand(command, training.run);
  at("trainings").append(box);
  const draws = [];
  const panel = (title, table, panels, legend = true) => {
    const plot = make("div", { class: "plot short", role: "img", "aria-label": title });
    const save = () => {
      const columns = Object.keys(table);
      download(`${title.split(":")[0].replaceAll(" ", "_")}.csv`, columns, table.epoch.map((_, n) => columns.map((c) => (Number.isNaN(table[c][n]) ? null : table[c][n]))));
    };
    box.append(make("h3", {}, title), plot, make("button", { type: "button", onclick: save }, "Numbers (CSV)"));
    draws.push(Plotly.newPlot(plot, ...panelsOf(table, panels, training.checkpoints, legend), { ...CONFIG, scrollZoom: false }));
  };
  if (training.history) panel("History: loss and accuracy over the epochs", training.history, HISTORY);
  if (training.monitor) panel("Monitor: curvature over the epochs, bars are two standard errors", training.monitor, MONITOR);
  if (training.held_out) panel("Held-out images: accuracy over the epochs", training.held_out, [["accuracy", Object.keys(training.held_out).filter((c) => c !== "epoch").map((c) => [c, c])]]);
  box.append(command);
  return Promise.all(draws);
}

const HISTORY = [["loss", [["train_loss", "train"], ["test_loss", "test"]]], ["accuracy", [["train_accuracy", "train"], ["test_accuracy", "test"]]]];
const MONITOR = [
  ["largest eigenvalue", [["lambda_max", "λmax", "lambda_max_sampling_error"], ["lambda_max_elsewhere", "its vector on other examples"]]],
  ["trace", [["trace", "trace", "trace_standard_error"]]],
  ["curvature over the limit", [["stability", "stability"]]],
  ["gradient norm", [["gradient_norm", "norm"], ["gradient_noise", "noise alone"]]],
];

/** Traces and layout of panels side by side; dotted lines are the checkpoints that were kept. */
function panelsOf(table, panels, checkpoints, showlegend) {
  const traces = [];
  const here = epochOf(state.point);
  const layout = { font: FONT, margin: { l: 55, r: 10, t: 8, b: 70 }, legend: { orientation: "h", y: -0.26 }, showlegend, shapes: [], hovermode: "x" };
  panels.forEach(([title, columns], n) => {
    const suffix = n ? String(n + 1) : "";
    const width = 1 / panels.length;
    const isLog = state.log && title === "loss";
    layout[`xaxis${suffix}`] = { domain: [n * width + (n ? 0.045 : 0), (n + 1) * width - 0.01], anchor: `y${suffix}`, title: { text: "epoch", standoff: 6 }, zeroline: false };
    layout[`yaxis${suffix}`] = { anchor: `x${suffix}`, title: { text: title, standoff: 4 }, type: isLog ? "log" : "linear", gridcolor: "#e8ebef", zeroline: false, automargin: true };
    columns.filter(([c]) => table[c]).forEach(([column, name, error], k) => {
      const bars = error && table[error] ? { error_y: { type: "data", array: table[error].map((e) => 2 * (e || 0)), thickness: 1, width: 3 } } : {};
      traces.push({ type: "scatter", mode: "lines+markers", marker: { size: 4 }, x: table.epoch, y: table[column], name: `${title}: ${name}`, xaxis: `x${suffix}`, yaxis: `y${suffix}`, line: { color: COLORS[k], dash: DASHES[k], width: 1.8 }, ...bars });
    });
    for (const epoch of checkpoints) {
      const line = epoch === here ? { color: MARK, width: 2 } : { color: "#999", width: 1, dash: "dot" };
      layout.shapes.push({ type: "line", xref: `x${suffix}`, yref: `y${suffix} domain`, x0: epoch, x1: epoch, y0: 0, y1: 1, line });
    }
  });
  return [traces, layout];
}
