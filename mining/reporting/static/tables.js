// Tables: assessments, layers, other results, and the commands of the runs.

const measured = (m) => {
  if (!m || m.value === null) return "–";
  const words = `${text(m.value)}${m.error === null || m.error === undefined ? "" : ` ± ${text(m.error, 2)}`}`;
  return m.applies === false ? `(${words})` : words;
};

function drawAssessments() {
  const found = ofPoint(content.assessments);
  at("assessments-section").hidden = found.length === 0;
  at("assessments").replaceChildren(...found.map((assessment) => {
    const box = make("div");
    for (const finding of assessment.findings) {
      box.append(make("p", { class: "finding" }, make("strong", {}, `${finding.name}: `), finding.text));
    }
    const two = assessment.rows.some((row) => row.second);
    const header = ["quantity", "value ± standard error", ...(two ? ["second checkpoint"] : []), "what it means", "what it does not mean"];
    const rows = assessment.rows.map((row) => [
      row.title, make("span", { class: row.applies ? "" : "not-applicable", title: row.interval ? `95 %: ${row.interval.map((v) => text(v, 3)).join(" to ")}` : "" }, measured(row)),
      ...(two ? [measured(row.second)] : []), row.why ? `${row.says} (${row.why})` : row.says, row.does_not_say,
    ]);
    const command = make("div", { class: "command" });
    showCommand(command, assessment.run);
    const save = () => download("assessment.csv", ["quantity", "value", "error", "applies", "why"], assessment.rows.map((r) => [r.name, r.value, r.error, r.applies, r.why]));
    box.append(make("p", { class: "note" }, "Numbers in parentheses do not apply, for the reason given beside them."), make("div", { class: "scroll" }, makeTable(header, rows)), make("button", { type: "button", onclick: save }, "Numbers (CSV)"), command);
    return box;
  }));
}

function drawLayers() {
  const found = ofPoint(content.layers).map((item) => ({ ...item, blocks: item.blocks.map(unpack) }));
  at("layers-section").hidden = found.length === 0;
  at("layers").replaceChildren();
  return Promise.all(found.map((item) => {
    const column = (name) => item.columns.indexOf(name);
    const operators = [...new Set(item.rows.map((row) => row[column("operator")]))];
    const plot = make("div", { class: "plot short", role: "img", "aria-label": "Trace and largest eigenvalue of the block of every layer; the numbers are in the table below." });
    const command = make("div", { class: "command" });
    showCommand(command, item.run);
    const save = () => download("layers.csv", item.columns, item.rows);
    const table = makeTable(item.columns.map((c) => c.replaceAll("_", " ")), item.rows.map((row) => row.map((v) => (typeof v === "number" ? text(v) : v ?? "–"))));
    const names = [...new Set(item.blocks.map((block) => block.layer))];
    const spectrum = make("div", { class: "plot short", role: "img" });
    const chosen = make("select", { onchange: (event) => drawBlock(item, event.target.value, spectrum) }, ...names.map((value) => make("option", { value }, value)));
    const densities = names.length ? [make("label", {}, "Spectrum of layer ", chosen), spectrum] : [];
    at("layers").append(plot, ...densities, make("div", { class: "scroll" }, table), make("button", { type: "button", onclick: save }, "Numbers (CSV)"), command);
    const traces = operators.flatMap((operator, k) => ["lambda_max", "trace"].map((name, n) => {
      const rows = item.rows.filter((row) => row[column("operator")] === operator);
      const errors = name === "trace" ? { error_y: { type: "data", array: rows.map((r) => 2 * r[column("trace_standard_error")]) } } : {};
      return { type: "bar", x: rows.map((r) => r[column("layer")]), y: rows.map((r) => r[column(name)]), name: operator.replace("_", "-"), legendgroup: operator, showlegend: n === 0, marker: { color: COLORS[k], pattern: { shape: k ? "/" : "" } }, xaxis: n ? "x2" : "x", yaxis: n ? "y2" : "y", ...errors };
    }));
    const layout = {
      font: FONT, margin: { l: 55, r: 10, t: 8, b: 60 }, barmode: "group", legend: { orientation: "h", y: -0.2 },
      xaxis: { domain: [0, 0.47] }, yaxis: { title: { text: "largest eigenvalue" } }, xaxis2: { domain: [0.55, 1], anchor: "y2" }, yaxis2: { anchor: "x2", title: { text: "trace ± 2 standard errors" } },
    };
    const draws = [Plotly.newPlot(plot, traces, layout, { ...CONFIG, scrollZoom: false })];
    if (names.length) draws.push(drawBlock(item, names.at(-1), spectrum));
    chosen.value = names.at(-1);
    return Promise.all(draws);
  }));
}

function drawPictures() {
  const found = ofPoint(content.pictures);
  at("pictures-section").hidden = found.length === 0;
  at("pictures").replaceChildren(...found.map((picture) => {
    const shown = picture.image ? make("img", { src: `data:image/png;base64,${picture.image}`, alt: `${picture.title}, ${picture.loss_of}` }) : make("p", {}, picture.file);
    return make("figure", {}, shown, make("figcaption", {}, `${picture.title}, ${picture.loss_of}`));
  }));
}

function drawRuns() {
  const order = (run) => [run.network === state.network ? 0 : 1, run.network, run.pipeline, run.point];
  const sorted = content.runs.map((run, n) => ({ run, n })).sort((a, b) => (order(a.run).join() < order(b.run).join() ? -1 : 1));
  const names = Object.fromEntries(content.networks.map((n) => [n.key, n.name]));
  at("runs").replaceChildren(...sorted.map(({ run, n }) => {
    const command = make("div", { class: "command" });
    showCommand(command, n, "");
    const versions = Object.entries(run.versions).map(([k, v]) => `${k} ${v}`).join(", ");
    const git = run.git.commit ? `${run.git.commit.slice(0, 10)}${run.git.dirty ? " with changes" : ""}` : "not from a checkout";
    const facts = [...(run.typed ? [["typed as", run.typed]] : []), ["folder", run.directory], ["digest", run.digest], ["seed", run.seed], ["device", run.device], ["seconds", text(run.seconds)], ["versions", versions], ["commit", git]];
    const list = make("dl", {}, ...facts.flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, String(v))]));
    const along = run.along.length ? ` (${run.along.join(" × ")})` : "";
    const title = `${run.pipeline}${along}, ${names[run.network]}, ${run.pipeline === "train" ? "" : `${run.point}, `}${run.loss_of}: ${run.digest.slice(0, 8)}, seed ${run.seed}`;
    return make("details", {}, make("summary", {}, title), command, list);
  }));
}
