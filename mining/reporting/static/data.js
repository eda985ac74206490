"use strict";
// Numbers of the page: decoding, formatting, interpolation, CSV.

const content = JSON.parse(document.getElementById("content").textContent);
const at = (id) => document.getElementById(id);

/** Decode an array of float64 values; null stays null. */
function decode(array) {
  if (!array) return null;
  const bytes = Uint8Array.from(atob(array.f64), (c) => c.charCodeAt(0));
  return Array.from(new Float64Array(bytes.buffer));
}

/** Decode a matrix into rows. */
function decodeRows(array) {
  if (!array) return null;
  const flat = decode(array);
  const [rows, columns] = array.shape;
  return Array.from({ length: rows }, (_, i) => flat.slice(i * columns, (i + 1) * columns));
}

/** Decode all arrays of an object once; matrices become rows. */
function unpack(item) {
  const found = {};
  for (const [key, value] of Object.entries(item)) {
    if (value && typeof value === "object" && "f64" in value) {
      found[key] = value.shape.length === 2 ? decodeRows(value) : decode(value);
    } else if (value && typeof value === "object" && !Array.isArray(value)) {
      found[key] = unpack(value);
    } else {
      found[key] = value;
    }
  }
  return found;
}

/** Four significant digits. */
function text(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const shown = size >= 1e5 || size < 1e-3 ? value.toExponential(digits - 2) : Number(value.toPrecision(digits)).toString();
  return shown.replace("-", "−");
}

const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(2)} %`);

const finite = (values) => values.filter((v) => Number.isFinite(v));
const extent = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);

/** Transpose rows into columns. */
const transpose = (rows) => rows[0].map((_, j) => rows.map((row) => row[j]));

/** The interval of increasing points that a value lies in, with its share; null if in none. */
function bracket(points, value) {
  const last = points.length - 1;
  const slack = 1e-6 * (points[last] - points[0]);
  if (value < points[0] - slack || value > points[last] + slack) return null;
  let low = 0;
  while (low < last - 1 && points[low + 1] <= value) low += 1;
  const share = (value - points[low]) / (points[low + 1] - points[low]);
  return [low, Math.min(Math.max(share, 0), 1)];
}

/** The value of a grid between its points, linear in both directions; null beyond its edge. */
function interpolate(xs, ys, rows, x, y) {
  const a = bracket(xs, x);
  const b = bracket(ys, y);
  if (!a || !b || !rows) return null;
  const [i, s] = a;
  const [j, t] = b;
  const along = (row) => row[j] * (1 - t) + (t ? row[j + 1] * t : 0);
  const value = along(rows[i]) * (1 - s) + (s ? along(rows[i + 1]) * s : 0);
  return Number.isFinite(value) ? value : null;
}

/** Ticks of a logarithmic axis from the logarithms of its ends. */
function logTicks(low, high) {
  const values = [];
  const steps = high - low > 3 ? [1] : high - low > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  for (let e = Math.floor(low); e <= Math.ceil(high); e += 1) {
    for (const step of steps) {
      const position = e + Math.log10(step);
      if (position >= low - 1e-9 && position <= high + 1e-9) values.push(position);
    }
  }
  return { tickvals: values, ticktext: values.map((v) => text(10 ** v, 3)) };
}

/** Offer rows as a CSV file; numbers are written in full. */
function download(name, header, rows) {
  const cell = (value) => {
    const written = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(written) ? `"${written.replaceAll('"', '""')}"` : written;
  };
  const lines = [header, ...rows].map((row) => row.map(cell).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Make an element: attributes, text or children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Make a table of rows of cells; a cell is text or an element. */
function makeTable(header, rows) {
  const head = make("thead", {}, make("tr", {}, ...header.map((h) => make("th", { scope: "col" }, h))));
  const lines = rows.map((row) => make("tr", {}, ...row.map((c) => make("td", {}, c ?? "–"))));
  return make("table", {}, head, make("tbody", {}, ...lines));
}

/** The command of a run, with a button that copies it. */
function showCommand(box, number, before = "Made by") {
  box.replaceChildren();
  const run = number === null || number === undefined ? null : content.runs[number];
  if (!run) return;
  if (run.command === null) {
    box.append(make("span", {}, `${before}:`), make("span", {}, `no command is known, ${run.why}`));
    return;
  }
  const button = make("button", { type: "button", "aria-label": `Copy ${run.command}` }, "copy");
  button.addEventListener("click", async () => {
    await copy(run.command);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  box.append(make("span", {}, `${before}`), make("code", {}, run.command), button);
}

/** Copy text; pages opened from disk have no clipboard in some browsers. */
async function copy(words) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(words);
  const area = make("textarea", { "aria-hidden": "true" });
  area.value = words;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  return undefined;
}
