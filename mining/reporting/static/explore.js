// Exploring: lines between points of the surface, evaluated by the server that sent the page.

const POLL = 150; // milliseconds between two questions about an evaluation
const exploring = { job: null, from: null };

async function ask(method, address, content) {
  const options = content === undefined ? { method } : { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
  const answer = await fetch(address, options);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

/** Evaluate the line from start to end; start null: through θ, with end on it. */
async function evaluateLine(start, end) {
  if (exploring.job !== null) return tellExploring("Another line is being evaluated: wait, or cancel it.");
  const surface = state.surface;
  exploring.job = 0;
  try {
    let job = await ask("POST", "lines", { surface, start, end, num: Number(at("line-num").value) });
    exploring.job = job.number;
    at("line-cancel").disabled = false;
    while (job.state === "waiting" || job.state === "running") {
      showProgress(job);
      await new Promise((resolve) => { setTimeout(resolve, POLL); });
      job = await ask("GET", `jobs/${job.number}`);
    }
    if (job.state === "done") await addLine(job.result);
    else tellExploring(job.state === "cancelled" ? "Cancelled." : job.error);
  } catch (error) {
    tellExploring(error instanceof TypeError ? "The server does not answer: it has been stopped." : error.message);
  } finally {
    exploring.job = null;
    at("line-cancel").disabled = true;
    at("line-progress").hidden = true;
  }
  return undefined;
}

function showProgress(job) {
  const bar = at("line-progress");
  bar.hidden = false;
  if (job.total === null) {
    bar.removeAttribute("value");
    tellExploring("The landscape is being built.");
    return;
  }
  bar.max = job.total;
  bar.value = job.done;
  tellExploring(`${job.done} of ${job.total} points.`);
}

async function addLine(content) {
  const curve = unpack(content);
  curves.push(curve);
  tellExploring(`${curve.name}: ${curve.label}, ${curve.meaning}.`);
  // Another surface may have been chosen meanwhile: the line is shown with its own.
  if (curve.of_surface === state.surface) await choose(curves.length - 1);
  listenToCurves();
}

function tellExploring(words) {
  at("line-told").textContent = words;
}

/** The point of the surface under the pointer, on the contours; null beside them. */
function pointUnder(event) {
  const layout = at("contours")._fullLayout;
  if (!layout || !layout.xaxis) return null;
  const { xaxis, yaxis } = layout;
  const box = at("contours").getBoundingClientRect();
  const [x, y] = [event.clientX - box.left - xaxis._offset, event.clientY - box.top - yaxis._offset];
  if (x < 0 || y < 0 || x > xaxis._length || y > yaxis._length) return null;
  return [xaxis.p2d(x), yaxis.p2d(y)];
}

function showDrawn(from, to) {
  const line = { type: "line", x0: from[0], y0: from[1], x1: to[0], y1: to[1], line: { color: "#ffd400", width: 3, dash: "dot" } };
  Plotly.relayout("contours", { shapes: [line] });
}

function onDown(event) {
  if (event.button !== 0) return;
  exploring.from = pointUnder(event);
  exploring.pixels = [event.clientX, event.clientY];
}

const dragged = (event) => Math.hypot(event.clientX - exploring.pixels[0], event.clientY - exploring.pixels[1]) > 5;

function onMove(event) {
  const to = exploring.from && dragged(event) ? pointUnder(event) : null;
  if (to) requestAnimationFrame(() => { if (exploring.from) showDrawn(exploring.from, to); });
}

function onUp(event) {
  const [from, to] = [exploring.from, pointUnder(event)];
  exploring.from = null;
  if (!from) return;
  const isLine = dragged(event);
  if (isLine) Plotly.relayout("contours", { shapes: [] });
  if (to) fillAndEvaluate(isLine ? from : null, isLine ? to : from);
}

/** Write the ends into the form, so that they can be changed, and evaluate. */
function fillAndEvaluate(start, end) {
  const write = (name, value) => { at(`line-${name}`).value = value === null ? "" : Number(value.toPrecision(6)); };
  [["start-x", start && start[0]], ["start-y", start && start[1]], ["end-x", end[0]], ["end-y", end[1]]].forEach((pair) => write(...pair));
  return onSubmit();
}

function onSubmit() {
  const read = (name) => (at(`line-${name}`).value === "" ? null : Number(at(`line-${name}`).value));
  const start = [read("start-x"), read("start-y")];
  const end = [read("end-x"), read("end-y")];
  if (end.includes(null)) return tellExploring("Give α and β of the point to which the line leads.");
  if (start.filter((v) => v === null).length === 1) return tellExploring("Give both α and β of the first point, or neither.");
  return evaluateLine(start[0] === null ? null : start, end);
}

/** Add the form, and listen to both pictures. */
function explore() {
  const number = (id, name) => make("label", {}, `${name} `, make("input", { id: `line-${id}`, type: "number", step: "any", style: "width: 6em" }));
  const form = make(
    "form", { class: "row", id: "line-form", "aria-label": "Lines that are evaluated" },
    number("start-x", "From α"), number("start-y", "β"), number("end-x", "to α"), number("end-y", "β"),
    make("label", {}, "points ", make("input", { id: "line-num", type: "number", min: "2", max: "1001", value: "41", style: "width: 5em" })),
    make("button", { type: "submit" }, "Evaluate"),
    make("button", { type: "button", id: "line-cancel", disabled: "" }, "Cancel"),
    make("progress", { id: "line-progress", hidden: "", "aria-label": "Evaluated points" }),
  );
  const told = make("p", { class: "note", id: "line-told", role: "status", "aria-live": "polite" }, "Drag on the contours: the loss along the line is evaluated. Click on a picture: along the line through θ and that point. The label of a line between two points is that of the first.");
  form.addEventListener("submit", (event) => { event.preventDefault(); onSubmit(); });
  at("readout").after(form, told);
  at("line-cancel").addEventListener("click", () => { if (exploring.job) ask("DELETE", `jobs/${exploring.job}`); });
  at("contours").addEventListener("pointerdown", onDown, true);
  window.addEventListener("pointermove", onMove, true);
  window.addEventListener("pointerup", onUp, true);
  at("relief").on("plotly_click", (event) => {
    const point = event.points[0];
    if (point.curveNumber === 0) fillAndEvaluate(null, [point.x, point.y]);
  });
}
