// Curves, linked to the surface: their plot, their labels, and the point that is looked at.

/** A band two standard errors wide on both sides, as one closed line. */
function band(alphas, values, errors, color, axis) {
  const upper = values.map((v, n) => v + 2 * errors[n]);
  const lower = values.map((v, n) => v - 2 * errors[n]);
  return {
    type: "scatter", x: [...alphas, ...[...alphas].reverse()], y: [...upper, ...lower.reverse()], fill: "toself",
    fillcolor: `${color}33`, line: { width: 0 }, hoverinfo: "skip", showlegend: false, yaxis: axis, mode: "lines",
  };
}

function tracesOf(number) {
  const curve = curves[number];
  const { color, dash } = styleOf(curve.group);
  const width = number === state.curve ? 4 : 1.7;
  const found = [];
  const add = (values, errors, axis, line, name) => {
    if (!values) return;
    if (errors) found.push(band(curve.alphas, values, errors, color, axis));
    const unit = axis === "y" ? text : percent;
    found.push({
      type: "scatter", mode: "lines", x: curve.alphas, y: values, yaxis: axis, line: { color, width, ...line }, connectgaps: false, showlegend: false,
      meta: number, name, hoverlabel: { bgcolor: "#fff", bordercolor: color, font: FONT }, text: values.map((v, n) => `${curve.name}: ${curve.label}<br>α ${text(curve.alphas[n], 3)}, ${name} ${unit(v)}`),
      hoverinfo: "text",
    });
  };
  add(curve.loss, curve.loss_error, "y", { dash }, "loss");
  add(curve.loss_test, curve.loss_test_error, "y", { dash: "dot", width: width * 0.7 }, "loss on test");
  add(curve.accuracy, curve.accuracy_error, "y2", { dash }, "accuracy");
  add(curve.accuracy_test, null, "y2", { dash: "dot", width: width * 0.7 }, "accuracy on test");
  return found;
}

function drawCurves() {
  const here = curvesHere();
  at("curves-section").hidden = here.length === 0;
  if (here.length === 0) return undefined;
  const shown = curvesShown();
  const order = [...shown.filter((n) => n !== state.curve), ...shown.filter((n) => n === state.curve)];
  const traces = order.flatMap(tracesOf);
  traces.push({ type: "scatter", x: [null], y: [null], mode: "markers", showlegend: false, hoverinfo: "skip", marker: { size: 13, color: "#ffd400", line: { color: "#000", width: 2 } } });
  const withAccuracy = shown.some((n) => curves[n].accuracy);
  const losses = finite(shown.flatMap((n) => [...curves[n].loss, ...(curves[n].loss_test ?? [])]));
  const cap = capOf(shown.map((n) => curves[n]));
  const shapes = [vertical(0, "#444")];
  const chance = shown.length ? curves[shown[0]].chance : null;
  const [low, high] = extent(losses);
  if (chance !== null && Number.isFinite(low) && chance - low < 3 * (high - low)) {
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: chance, y1: chance, line: { color: "#888", dash: "dot", width: 1 }, label: { text: "chance level", textposition: "end", font: { size: 11, color: "#666" } } });
  }
  for (const n of shown) if (curves[n].other_alpha) shapes.push(vertical(curves[n].other_alpha, MARK));
  const layout = {
    font: FONT, margin: { l: 62, r: 12, t: 8, b: 42 }, hovermode: "closest", showlegend: false, dragmode: "zoom", shapes,
    xaxis: { title: { text: "α, multiples of each curve's own direction" }, anchor: withAccuracy ? "y2" : "y", zeroline: false, gridcolor: "#e8ebef" },
    yaxis: { title: { text: "loss" }, domain: withAccuracy ? [0.36, 1] : [0, 1], ...lossAxis(losses, cap), gridcolor: "#e8ebef", zeroline: false },
    yaxis2: { title: { text: "accuracy" }, domain: [0, 0.29], range: [-0.03, 1.03], tickformat: ".0%", gridcolor: "#e8ebef", zeroline: false, visible: withAccuracy },
  };
  at("curves").setAttribute("aria-label", `Loss along ${shown.length} curves; their labels are in the table below.`);
  drawGroups();
  drawLabels(here);
  chooseFrom("curve", shown.map((n) => [n, `${curves[n].name}: ${curves[n].label}`]), state.curve);
  const curve = curves[state.curve];
  if (curve) {
    at("alpha").max = curve.alphas.length - 1;
    if (Number(at("alpha").value) >= curve.alphas.length) at("alpha").value = 0;
    showCommand(at("curve-command"), curve.run, "Chosen curve made by");
  }
  return Plotly.react("curves", traces, layout, { ...CONFIG, scrollZoom: false });
}

const vertical = (x, color) => ({ type: "line", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color, width: 1, dash: "dot" } });

/** The axis of losses: linear or logarithmic, up to the cap. */
function lossAxis(losses, cap) {
  const axis = { type: state.log ? "log" : "linear", autorange: true };
  if (state.log) axis.exponentformat = "power";
  const [low, high] = extent(state.log ? losses.filter((v) => v > 0) : losses);
  if (cap === null || !(cap < high) || !(low < cap)) return axis;
  const margin = 0.04 * (cap - low);
  const range = state.log ? [Math.log10(low) - 0.05, Math.log10(cap)] : [low - margin, cap];
  return { ...axis, autorange: false, range };
}

function drawGroups() {
  const buttons = groupsHere().map((group) => {
    const { color } = styleOf(group);
    const swatch = make("span", { class: "swatch", style: `border-color:${color}` });
    const pressed = String(!state.hidden.has(group));
    return make("button", {
      type: "button", class: "chip", "aria-pressed": pressed,
      onclick: () => {
        if (!state.hidden.delete(group)) state.hidden.add(group);
        chooseCurve();
        drawAll();
      },
    }, swatch, group);
  });
  at("groups").replaceChildren(...buttons);
}

function drawLabels(numbers) {
  const cell = (curve) => make("span", { class: "label", title: curve.meaning }, curve.label + (curve.certain ? "" : ` (p = ${curve.probability.toFixed(2)})`));
  const rows = numbers.map((n) => {
    const c = curves[n];
    const depths = c.depths.map((d, i) => text(d, 3) + (c.depth_errors[i] ? ` ± ${text(c.depth_errors[i], 1)}` : "")).join(", ");
    const place = placeOf(c);
    const lies = !place ? "not known" : place.share > 0.999 ? "on it" : `${(100 * place.share).toFixed(0)} % of its length`;
    return [
      make("button", { type: "button", "aria-label": `Choose ${c.name}`, onclick: () => choose(n) }, c.name),
      cell(c), c.meaning, String(c.stationary_points), text(c.minimum_alpha, 3), depths || "–",
      text(c.curvature, 3), text(c.asymmetry, 2), lies,
    ];
  });
  const header = ["curve", "label", "what it means", "stationary points", "lowest at α", "depths to the lower rim (nats)", "curvature at θ", "asymmetry", "in the surface's plane"];
  const table = makeTable(header, rows);
  table.id = "labels";
  numbers.forEach((n, row) => table.tBodies[0].rows[row].classList.toggle("chosen", n === state.curve));
  at("labels").replaceWith(table);
}

function choose(number) {
  state.curve = number;
  state.hidden.delete(curves[number].group);
  at("alpha").value = curves[number].alphas.reduce((best, a, n, all) => (Math.abs(a) < Math.abs(all[best]) ? n : best), 0);
  return drawAll().then(() => lookAt(number, Number(at("alpha").value)));
}

/** Look at one point of a curve: its place on the surface, its numbers and its label. */
function lookAt(number, position) {
  const curve = curves[number];
  const alpha = curve.alphas[position];
  at("alpha-value").textContent = text(alpha, 3);
  const error = curve.loss_error ? ` ± ${text(2 * curve.loss_error[position], 2)}` : "";
  const parts = [`${curve.name} at α = ${text(alpha, 3)}: loss ${text(curve.loss[position])}${error}`];
  if (curve.accuracy) parts.push(`accuracy ${percent(curve.accuracy[position])}`);
  if (curve.loss_test) parts.push(`loss on test ${text(curve.loss_test[position])}`);
  parts.push(`${curve.label}: ${curve.meaning}`);
  const surface = surfaces[state.surface];
  const place = placeOf(curve);
  if (surface && place) {
    const [x, y] = [place.x[position], place.y[position]];
    const where = `(${text(x, 3)}, ${text(y, 3)})`;
    parts.push(place.share > 0.999 ? `on the surface at ${where}` : `projected onto the surface at ${where}, where its ${describePoint(surface, x, y)}; ${(100 * place.share).toFixed(0)} % of the direction lies in the plane`);
    mark(x, y);
  } else {
    mark(null, null);
  }
  at("readout").textContent = `${parts.join("; ")}.`;
  requestAnimationFrame(() => {
    const last = at("curves").data ? at("curves").data.length - 1 : 0;
    if (last > 0) Plotly.restyle("curves", { x: [[alpha]], y: [[curve.loss[position]]] }, [last]);
  });
}

let hovered = "";

function onHoverCurve(event) {
  const point = event.points[0];
  if (point.data.meta === undefined) return;
  const number = point.data.meta;
  const position = point.pointIndex;
  // To move the marker draws the plot again, which tells of the same point once more.
  const key = `${number} ${position}`;
  if (key === hovered) return;
  hovered = key;
  if (number !== state.curve) {
    state.curve = number;
    at("curve").value = number;
    at("alpha").max = curves[number].alphas.length - 1;
    requestAnimationFrame(showChosen);
  }
  at("alpha").value = position;
  lookAt(number, position);
}

/** Draw the chosen curve on the surface, without drawing the rest again. */
function showChosen() {
  const surface = surfaces[state.surface];
  const curve = curves[state.curve];
  document.querySelectorAll("#labels tbody tr").forEach((row, n) => row.classList.toggle("chosen", curvesHere()[n] === state.curve));
  showCommand(at("curve-command"), curve.run, "Chosen curve made by");
  if (!surface) return;
  const place = placeOf(curve);
  const line = place ? lift(surface, place.x, place.y) : { x: [null], y: [null], z: [null] };
  const color = styleOf(curve.group).color;
  const last = at("relief").data.length;
  Plotly.restyle("relief", { x: [line.x, line.x], y: [line.y, line.y], z: [line.z, line.z], "line.color": color }, [last - 4, last - 3]);
  Plotly.restyle("contours", { x: [line.x, line.x], y: [line.y, line.y], "line.color": ["#fff", color] }, [last - 4, last - 3]);
}

function curvesCsv() {
  const columns = ["loss", "loss_error", "accuracy", "accuracy_error", "loss_test", "accuracy_test"];
  const rows = curvesHere().flatMap((n) => {
    const c = curves[n];
    return c.alphas.map((a, i) => [c.name, c.label, c.point, a, ...columns.map((k) => (c[k] ? c[k][i] : null))]);
  });
  download("curves.csv", ["curve", "label", "point", "alpha", ...columns], rows);
}
