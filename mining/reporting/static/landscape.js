// The surface in 3-D and its contours: one scene whose data switch, and markers on both.

const QUANTITIES = {
  loss: "loss",
  loss_test: "loss on test",
  accuracy: "accuracy",
  accuracy_test: "accuracy on test",
};
const FONT = { family: "system-ui, sans-serif", size: 12, color: "#1a1f27" };
const CONFIG = { responsive: true, displaylogo: false, scrollZoom: true, displayModeBar: false };
const MARK = "#c1121f";
const HALO = "0 0 4px #000, 0 0 4px #000";
const isLoss = (quantity) => quantity.startsWith("loss");

/** How numbers become heights: cut off, logarithmic if asked for; what cannot be drawn is null. */
function heightOf(surface) {
  const loss = isLoss(state.quantity);
  const cap = loss ? capOf([surface]) : null;
  return (value) => {
    if (value === null || Number.isNaN(value)) return null;
    const cut = cap === null ? value : Math.min(value, cap);
    if (!Number.isFinite(cut)) return null;
    if (!loss || !state.log) return cut;
    return cut > 0 ? Math.log10(cut) : null;
  };
}

function hoverTexts(surface) {
  const lines = (i, j) => {
    const parts = [`α ${text(surface.alphas[i], 3)}, β ${text(surface.betas[j], 3)}`];
    const known = surface.loss_error && surface.loss_error[i][j] !== null;
    const error = known ? ` ± ${text(2 * surface.loss_error[i][j], 2)}` : "";
    parts.push(`loss ${text(surface.loss[i][j])}${error}`);
    if (surface.accuracy) parts.push(`accuracy ${percent(surface.accuracy[i][j])}`);
    if (surface.loss_test) parts.push(`loss on test ${text(surface.loss_test[i][j])}`);
    if (surface.accuracy_test) parts.push(`accuracy on test ${percent(surface.accuracy_test[i][j])}`);
    if (surface.evaluated && !surface.evaluated[i][j]) parts.push("interpolated");
    return parts.join("<br>");
  };
  return surface.betas.map((_, j) => surface.alphas.map((_, i) => lines(i, j)));
}

/** Axis of heights: title, and ticks in the units of the quantity. */
function heightAxis(surface, heights) {
  const [low, high] = extent(finite(heights.flat()));
  const unit = isLoss(state.quantity) && surface.chance !== null ? " (nats)" : "";
  const axis = { title: { text: `${QUANTITIES[state.quantity]}${unit}` } };
  if (isLoss(state.quantity) && state.log && Number.isFinite(low)) Object.assign(axis, logTicks(low, high));
  return axis;
}

/** A line on the surface: x, y and the heights of the surface under it. */
function lift(surface, xs, ys) {
  const height = heightOf(surface);
  const rows = surface[state.quantity];
  const z = xs.map((x, n) => height(interpolate(surface.alphas, surface.betas, rows, x, ys[n])));
  return { x: xs, y: ys, z };
}

function placeOf(curve) {
  const found = curve && curve.place && curve.place[state.surface];
  return found ?? null;
}

/** Basins whose minimum is not at the edge, to which the loss falls. */
const basinsInside = (surface) => surface.basins.filter((basin) => !basin.on_edge);

/** List the basins under the pictures. */
function drawBasins(surface) {
  const found = surface.basins;
  at("basins").hidden = found.length === 0;
  const place = (point) => (point ? `(${point.map((v) => text(v, 3)).join(", ")})` : "–");
  const rows = found.map((b, n) => [
    String(n + 1), place(b.at), text(b.loss), text(b.depth), b.joins === null ? "–" : String(b.joins + 1), place(b.saddle), text(b.saddle_loss), b.on_edge ? "at the edge" : "inside",
  ]);
  const header = ["basin", "minimum at (α, β)", "loss there", "depth (persistence)", "joins basin", "over the saddle at", "loss there", "minimum lies"];
  const save = () => download("basins.csv", ["alpha", "beta", "loss", "depth", "joins", "saddle_alpha", "saddle_beta", "saddle_loss", "on_edge"], found.map((b) => [...b.at, b.loss, b.depth, b.joins === null ? null : b.joins + 1, ...(b.saddle ?? [null, null]), b.saddle_loss, b.on_edge]));
  const inside = basinsInside(surface).length;
  const title = `${found.length === 1 ? "1 basin" : `${found.length} basins`} at least 1 % of the range deep; minimum inside the picture: ${inside}`;
  const note = inside > 1 ? "Marked on the pictures: minima inside (orange), saddles (blue crosses). " : "";
  at("basins").replaceChildren(make("summary", {}, title), make("p", { class: "note" }, `${note}They are basins of this plane; in the other directions the loss may fall.`), make("div", { class: "scroll" }, makeTable(header, rows)), make("button", { type: "button", onclick: save }, "Numbers (CSV)"));
}

/** Traces for either picture: basins, path, θ, the chosen curve, and a marker. */
function overlays(surface, in3d, above = 0) {
  const type = in3d ? "scatter3d" : "scatter";
  const found = [];
  const add = (xs, ys, more) => {
    const line = lift(surface, xs, ys);
    if (!in3d) delete line.z;
    else if (above) line.z = line.z.map((v) => (v === null ? null : v + above));
    found.push({ type, hoverinfo: "skip", showlegend: false, ...line, ...more });
  };
  const inside = basinsInside(surface);
  if (inside.length > 1) {
    const saddles = inside.filter((basin) => basin.saddle).map((basin) => basin.saddle);
    const marker = (symbol, color, size) => ({ mode: "markers", marker: { symbol, color, size, line: { color: "#fff", width: 1.5 } }, hoverinfo: "text" });
    const minima = inside.map((basin) => basin.at);
    // Plots in 3-D have no triangles.
    add(minima.map(([x]) => x), minima.map(([, y]) => y), { ...marker(in3d ? "circle" : "triangle-down", "#e69f00", in3d ? 6 : 13), hovertext: inside.map((basin) => `minimum: loss ${text(basin.loss)}, depth ${text(basin.depth, 3)}`) });
    add(saddles.map(([x]) => x), saddles.map(([, y]) => y), { ...marker("x", "#56b4e9", in3d ? 4 : 11), hovertext: inside.filter((basin) => basin.saddle).map((basin) => `saddle: loss ${text(basin.saddle_loss)}`) });
  }
  if (surface.path) {
    const fine = refine(surface.path.x, surface.path.y);
    add(fine.x, fine.y, { mode: "lines", line: { color: "#111", width: in3d ? 6 : 2.5 } });
    const spread = surface.path.names.map((name, n) => (named(surface.path, n) ? name : ""));
    const text2d = in3d ? {} : { text: spread, textposition: "top center", textfont: { size: 12, color: "#fff", shadow: HALO } };
    add(surface.path.x, surface.path.y, {
      mode: in3d ? "markers" : "markers+text", ...text2d,
      marker: { size: in3d ? 4 : 7, color: "#fff", line: { color: "#111", width: in3d ? 2 : 1.5 } },
      hoverinfo: "text", hovertext: surface.path.names.map((name, n) => `${name}: off the plane by ${percent(surface.path.deviation[n])} of the path`),
    });
  }
  const place = placeOf(curves[state.curve]);
  const color = place ? styleOf(curves[state.curve].group).color : "#000";
  add(place ? place.x : [null], place ? place.y : [null], { mode: "lines", line: { color: in3d ? color : "#fff", width: in3d ? 9 : 5 } });
  add(place ? place.x : [null], place ? place.y : [null], { mode: "lines", line: { color, width: in3d ? 5 : 2.5 } });
  const theta = thetaHere(surface);
  add([theta ? theta[0] : null], [theta ? theta[1] : null], {
    mode: in3d ? "markers" : "markers+text", ...(in3d ? {} : { text: ["θ"], textposition: "bottom center", textfont: { size: 17, color: "#fff", shadow: HALO } }),
    marker: { size: in3d ? 7 : 12, color: MARK, symbol: "diamond", line: { color: "#fff", width: 1.5 } },
  });
  add([null], [null], { mode: "markers", marker: { size: in3d ? 8 : 14, color: "#ffd400", line: { color: "#000", width: 2 } } });
  return found;
}

/** Names of θ and of the points of the path in 3-D, on a ground that is legible on any colour. */
function annotationsOf(surface) {
  const label = (name, x, y, more) => {
    const { z } = lift(surface, [x], [y]);
    return z[0] === null ? [] : [{ x, y, z: z[0], text: name, showarrow: false, bgcolor: "rgba(255,255,255,0.82)", borderpad: 1, font: { size: 12 }, yshift: 16, ...more }];
  };
  const theta = thetaHere(surface);
  const found = theta ? label("<b>θ</b>", ...theta, { yshift: -17, font: { size: 15, color: MARK } }) : [];
  const path = surface.path;
  if (path) path.names.forEach((name, n) => { if (named(path, n)) found.push(...label(name, path.x[n], path.y[n], {})); });
  return found;
}

/** More points between those of a path, so that its line lies on the surface. */
function refine(xs, ys) {
  const x = [];
  const y = [];
  xs.forEach((_, n) => {
    const steps = n + 1 < xs.length ? 24 : 1;
    for (let k = 0; k < steps; k += 1) {
      const t = k / steps;
      x.push(n + 1 < xs.length ? xs[n] * (1 - t) + xs[n + 1] * t : xs[n]);
      y.push(n + 1 < xs.length ? ys[n] * (1 - t) + ys[n + 1] * t : ys[n]);
    }
  });
  return { x, y };
}

/** Whether a point of a path is named: the ends, and a few that are apart from them. */
function named(path, number) {
  const last = path.names.length - 1;
  if (number === 0 || number === last) return true;
  const step = Math.max(1, Math.round(last / 6));
  const size = Math.max(...[path.x, path.y].map((v) => { const [a, b] = extent(v); return b - a; }));
  const near = [0, last].some((n) => Math.hypot(path.x[n] - path.x[number], path.y[n] - path.y[number]) < 0.06 * size);
  return number % step === 0 && !near;
}

function drawLandscape() {
  const surface = surfaces[state.surface];
  at("landscape-body").hidden = surface === undefined;
  at("no-surface").hidden = surface !== undefined;
  if (surface === undefined) return undefined;
  if (!surface[state.quantity]) state.quantity = "loss";
  const height = heightOf(surface);
  const z = transpose(surface[state.quantity]).map((row) => row.map(height));
  const axis = heightAxis(surface, z);
  const texts = hoverTexts(surface);
  const color = { colorscale: state.colormap, reversescale: state.colormap === "Greys" };
  const bar = { thickness: 12, len: 0.9, title: { text: axis.title.text, side: "right" }, tickvals: axis.tickvals, ticktext: axis.ticktext };
  const names = [`α: ${shortened(surface.names[0])}`, `β: ${shortened(surface.names[1])}`];
  const relief = {
    type: "surface", x: surface.alphas, y: surface.betas, z, ...color, showscale: false, text: texts, hoverinfo: "text",
    contours: { z: { show: true, usecolormap: false, color: "rgba(0,0,0,0.28)", width: 1, project: { z: true }, ...levels(z) } },
    lighting: { ambient: 0.75, diffuse: 0.5, specular: 0.08, roughness: 0.9 },
  };
  const contours = {
    type: "contour", x: surface.alphas, y: surface.betas, z, ...color, colorbar: bar, text: texts, hoverinfo: "text",
    ncontours: 24, line: { width: 0.6, color: "rgba(255,255,255,0.55)" }, contours: { coloring: "fill" }, connectgaps: false,
  };
  const scene = {
    xaxis: { title: { text: brief(names[0]) }, ...GRID }, yaxis: { title: { text: brief(names[1]) }, ...GRID }, zaxis: { ...axis, ...GRID },
    aspectmode: "manual", aspectratio: { x: 1.15, y: 1.15, z: 0.75 }, camera: cameraOf(surface, z), dragmode: "turntable", annotations: annotationsOf(surface),
  };
  const layout = { font: FONT, margin: { l: 0, r: 0, t: 0, b: 0 }, scene, uirevision: state.surface, showlegend: false };
  const [x0, x1] = extent(surface.alphas);
  const [y0, y1] = extent(surface.betas);
  const flat = {
    font: FONT, margin: { l: 55, r: 10, t: 10, b: 45 }, showlegend: false, dragmode: false,
    xaxis: { title: { text: names[0] }, range: [x0, x1], zeroline: false }, yaxis: { title: { text: names[1] }, range: [y0, y1], zeroline: false },
  };
  describeLandscape(surface);
  drawBasins(surface);
  return Promise.all([
    Plotly.react("relief", [relief, ...overlays(surface, true, lifting(z))], layout, CONFIG),
    Plotly.react("contours", [contours, ...overlays(surface, false)], flat, { ...CONFIG, scrollZoom: false }),
  ]);
}

const GRID = { gridcolor: "#d5dae1", zerolinecolor: "#d5dae1", showbackground: true, backgroundcolor: "#fafbfc", tickfont: { size: 11 } };
const CENTER = { x: 0, y: 0, z: -0.14 };

/** Look from where the surface is low, somewhat aside, so that no wall hides θ and the path. */
function cameraOf(surface, z) {
  const [x0, x1] = extent(surface.alphas);
  const [y0, y1] = extent(surface.betas);
  let [slopeX, slopeY] = [0, 0];
  z.forEach((row, j) => row.forEach((value, i) => {
    if (value === null) return;
    slopeX += value * ((surface.alphas[i] - x0) / (x1 - x0) - 0.5);
    slopeY += value * ((surface.betas[j] - y0) / (y1 - y0) - 0.5);
  }));
  const turn = Math.hypot(slopeX, slopeY) > 0 ? Math.atan2(-slopeY, -slopeX) : -0.8;
  const angle = turn + 0.6;
  return { eye: { x: 1.75 * Math.cos(angle), y: 1.75 * Math.sin(angle), z: 1.25 }, center: CENTER };
}
const brief = (name) => name.split(" (")[0];
const shortened = (name) => (name.length > 34 ? `${name.slice(0, 33)}…` : name);

/** By how much lines are lifted, so that the surface does not swallow them. */
function lifting(z) {
  const [low, high] = extent(finite(z.flat()));
  return high > low ? 0.006 * (high - low) : 0;
}

/** Heights of the lines that are drawn on the surface. */
function levels(z) {
  const [low, high] = extent(finite(z.flat()));
  return high > low ? { start: low, end: high, size: (high - low) / 16 } : {};
}

/** Say where the lowest point is, if it is not θ. */
function lowestPoint(surface) {
  const [low] = extent(finite(surface.loss.flat()));
  const i = surface.loss.findIndex((row) => row.includes(low));
  const [a, b] = [surface.alphas.indexOf(0), surface.betas.indexOf(0)];
  if (i < 0 || a < 0 || b < 0 || surface.loss[a][b] <= low) return [];
  const place = `(${text(surface.alphas[i], 3)}, ${text(surface.betas[surface.loss[i].indexOf(low)], 3)})`;
  return [`The lowest point shown, at (α, β) = ${place}, is ${text(surface.loss[a][b] - low, 2)} below θ.`];
}

/** Say how far checkpoints are from the plane. */
function offPlane(path, off) {
  if (path.names.length <= 3 && off < 1e-4) return `${path.names.length} points always lie in one plane.`;
  return `Projected: they are off the plane by at most ${percent(off)} of their extent.`;
}

function describeLandscape(surface) {
  const parts = [`Loss at θ + αx + βy: ${surface.loss_of || "given in Python"}.`];
  if (surface.note) parts.push(`${surface.note}.`);
  if (surface.kind) parts.push(`θ is ${surface.kind.words} here; E is the epoch.`, ...lowestPoint(surface));
  const cap = isLoss(state.quantity) ? capOf([surface]) : null;
  const [, high] = extent(finite(surface.loss.flat()));
  if (cap !== null && cap < high) parts.push(`Cut off at ${text(cap, 3)} of ${text(high, 3)}.`);
  parts.push(...surface.notes.slice(surface.kind ? 1 : 0).map((note) => `${note}.`));
  at("surface-note").textContent = parts.join(" ");
  const path = surface.path;
  const off = path ? Math.max(...path.deviation) : 0;
  at("contours-caption").textContent = path
    ? `Black: straight lines between the checkpoints ${path.names.join(", ")} of the training. ${offPlane(path, off)}`
    : "Contours of the same surface. The diamond is θ.";
  showCommand(at("surface-command"), surface.run);
  const lines = surface.kind ? Object.entries(surface.kind.lines).map(([k, v]) => `${k} ${v}`).join(", ") : "";
  const [low] = extent(finite(surface.loss.flat()));
  const about = `of ${surface.names.join(" and ")}: the loss lies between ${text(low)} and ${text(high)}. ${lines}`;
  at("relief").setAttribute("aria-label", `Surface in 3-D ${about}`);
  at("contours").setAttribute("aria-label", `Contours ${about}`);
}

let marked = null;

/** Move the marker on both pictures; null hides it. Not within an event, which it would repeat. */
function mark(x, y) {
  const waits = marked !== null;
  marked = [x, y];
  if (!waits) {
    requestAnimationFrame(() => {
      const [latestX, latestY] = marked;
      marked = null;
      moveMark(latestX, latestY);
    });
  }
}

function moveMark(x, y) {
  const surface = surfaces[state.surface];
  if (!surface || !at("relief").data) return;
  const line = x === null ? { x: [null], y: [null], z: [null] } : lift(surface, [x], [y]);
  const last = (id) => at(id).data.length - 1;
  Plotly.restyle("relief", { x: [line.x], y: [line.y], z: [line.z] }, [last("relief")]);
  Plotly.restyle("contours", { x: [line.x], y: [line.y] }, [last("contours")]);
}

/** What the surface has at a point, in words. */
function describePoint(surface, x, y) {
  const value = (name) => interpolate(surface.alphas, surface.betas, surface[name], x, y);
  const parts = [`loss ${text(value("loss"))}`];
  if (surface.accuracy) parts.push(`accuracy ${percent(value("accuracy"))}`);
  if (surface.loss_test) parts.push(`loss on test ${text(value("loss_test"))}`);
  return parts.join(", ");
}

let seen = [null, null];

function onHoverSurface(event) {
  const point = event.points[0];
  if (point.curveNumber !== 0 || (point.x === seen[0] && point.y === seen[1])) return;
  seen = [point.x, point.y];
  mark(point.x, point.y);
  const surface = surfaces[state.surface];
  at("readout").textContent = `Surface at α = ${text(point.x, 3)}, β = ${text(point.y, 3)}: ${describePoint(surface, point.x, point.y)}.`;
}

/** Turn the scene with the arrow keys, and move closer with + and −. */
function onKey(event) {
  const turns = { ArrowLeft: -0.15, ArrowRight: 0.15 };
  const camera = at("relief").layout.scene.camera;
  const eye = { ...camera.eye };
  if (event.key in turns) {
    const [c, s] = [Math.cos(turns[event.key]), Math.sin(turns[event.key])];
    [eye.x, eye.y] = [eye.x * c - eye.y * s, eye.x * s + eye.y * c];
  } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    eye.z += event.key === "ArrowUp" ? 0.15 : -0.15;
  } else if ("+-=".includes(event.key)) {
    const factor = event.key === "-" ? 1.1 : 1 / 1.1;
    Object.keys(eye).forEach((k) => { eye[k] *= factor; });
  } else {
    return;
  }
  event.preventDefault();
  Plotly.relayout("relief", { "scene.camera": { ...camera, eye } });
}

function surfaceCsv() {
  const surface = surfaces[state.surface];
  const columns = ["loss", "accuracy", "loss_test", "accuracy_test", "loss_error", "accuracy_error", "evaluated"].filter((c) => surface[c]);
  const rows = surface.alphas.flatMap((a, i) => surface.betas.map((b, j) => [a, b, ...columns.map((c) => surface[c][i][j])]));
  download("surface.csv", ["alpha", "beta", ...columns], rows);
}
