// Starting: the library is unpacked, the controls are filled, and everything is drawn.

/** Inflate the library that draws, and run it. */
async function loadPlotly() {
  const packed = at("plotly").textContent;
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function chooseFrom(id, options, chosen) {
  at(id).replaceChildren(...options.map(([value, name]) => make("option", { value }, name)));
  if (chosen !== null && chosen !== undefined) at(id).value = chosen;
}

/** Names of surfaces; those of equal names are told apart by their digest. */
function surfaceNames(numbers) {
  const plain = numbers.map((n) => `${surfaces[n].names.join(" × ")}${surfaces[n].path ? ", with the path of the training" : ""} (${surfaces[n].point})`);
  return numbers.map((n, i) => {
    const twice = plain.filter((name) => name === plain[i]).length > 1;
    const about = surfaces[n].differs ?? `number ${n + 1}`;
    return [n, twice ? `${plain[i]}, ${about}` : plain[i]];
  });
}

function fillControls() {
  chooseFrom("network", content.networks.map((n) => [n.key, n.name]), state.network);
  const points = network().points;
  at("point-box").hidden = points.length < 2;
  at("point").max = points.length - 1;
  at("point").value = points.indexOf(state.point);
  at("point").setAttribute("aria-valuetext", state.point);
  at("point-name").textContent = state.point;
  chooseFrom("surface", surfaceNames(surfacesHere()), state.surface);
  const surface = surfaces[state.surface];
  if (surface) chooseFrom("quantity", Object.entries(QUANTITIES).filter(([k]) => surface[k]), state.quantity);
  const cap = capOf(surface ? [surface] : curvesShown().map((n) => curves[n]));
  at("cap-value").textContent = `${cap === null ? "none" : text(cap, 3)}${state.cap === null ? "" : " nats"}`;
  at("cap").setAttribute("aria-valuetext", cap === null ? "none" : text(cap, 3));
  at("cap").value = cap === null ? 100 : capPosition(cap);
  at("summary").replaceChildren(...network().summary[state.point].map((line) => make("li", {}, line)));
}

/** Range of the losses of this θ, which the cap is chosen from. */
function lossRange() {
  const surface = surfaces[state.surface];
  const values = finite(surface ? surface.loss.flat() : curvesShown().flatMap((n) => curves[n].loss));
  return extent(values);
}

/** Positions of the slider are even in the logarithm where losses are positive. */
function capAt(position) {
  const [low, high] = lossRange();
  const share = position / 100;
  return low > 0 ? low * (high / low) ** share : low + (high - low) * share;
}

function capPosition(cap) {
  const [low, high] = lossRange();
  if (!(high > low)) return 100;
  const share = low > 0 ? Math.log(cap / low) / Math.log(high / low) : (cap - low) / (high - low);
  return Math.round(100 * Math.min(Math.max(share, 0), 1));
}

async function drawAll() {
  fillControls();
  state.drawing = Promise.all([drawLandscape(), drawCurves()]);
  await state.drawing;
}

async function drawEverything() {
  drawAssessments();
  drawPictures();
  drawRuns();
  await Promise.all([drawAll(), drawSpectra(), drawTrainings(), drawLayers()]);
}

function listen() {
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("network").addEventListener("change", (event) => { chooseNetwork(event.target.value); drawEverything(); });
  at("point").addEventListener("input", (event) => { choosePoint(network().points[Number(event.target.value)]); drawEverything(); });
  at("surface").addEventListener("change", (event) => { state.surface = Number(event.target.value); chooseCurve(); drawAll(); });
  at("quantity").addEventListener("change", (event) => { state.quantity = event.target.value; drawAll(); });
  at("colormap").addEventListener("change", (event) => { state.colormap = event.target.value; drawAll(); });
  at("curve").addEventListener("change", (event) => choose(Number(event.target.value)));
  at("alpha").addEventListener("input", (event) => lookAt(state.curve, Number(event.target.value)));
  at("cap").addEventListener("input", (event) => {
    const position = Number(event.target.value);
    state.cap = position >= 100 ? lossRange()[1] : capAt(position);
    drawAll();
  });
  at("cap-auto").addEventListener("click", () => { state.cap = null; drawAll(); });
  document.querySelectorAll("[name=scale]").forEach((radio) => radio.addEventListener("change", () => {
    state.log = document.querySelector("[name=scale]:checked").value === "log";
    drawAll();
    drawTrainings();
  }));
  at("surface-csv").addEventListener("click", surfaceCsv);
  at("curves-csv").addEventListener("click", curvesCsv);
  at("camera").addEventListener("click", () => Plotly.relayout("relief", { "scene.camera": cameraOf(surfaces[state.surface], at("relief").data[0].z) }));
  at("relief").setAttribute("tabindex", "0");
  at("relief").addEventListener("keydown", onKey);
  for (const id of ["relief", "contours"]) if (at(id).on) at(id).on("plotly_hover", onHoverSurface);
  listenToCurves();
}

/** Listen once the plot of the curves exists. */
function listenToCurves() {
  if (!at("curves").on || at("curves").dataset.listened) return;
  at("curves").dataset.listened = "true";
  at("curves").on("plotly_hover", onHoverCurve);
}

async function start() {
  await loadPlotly();
  at("made").replaceChildren(...describeMaking());
  chooseNetwork(content.networks[0].key);
  await drawEverything();
  listen();
  if (curves[state.curve]) at("alpha").value = nearestToTheta(curves[state.curve]);
  if (typeof explore === "function") explore();
  document.body.dataset.ready = "true";
}

const nearestToTheta = (curve) => curve.alphas.reduce((best, a, n, all) => (Math.abs(a) < Math.abs(all[best]) ? n : best), 0);

/** What was typed for the runs, without the values that a sweep goes through. */
function typedCommands() {
  const typed = content.runs.filter((run) => run.typed && /experiment=/.test(run.typed));
  return [...new Set(typed.map((run) => `python -m mining ${run.typed.split(" ").filter((w) => /^(experiment|size)=/.test(w)).join(" ")}`))];
}

function describeMaking() {
  const { command, versions } = content.made;
  const told = `mining ${versions.mining}, torch ${versions.torch}`;
  const parts = [];
  for (const typed of typedCommands()) parts.push(parts.length ? ", " : "Computed by ", make("code", {}, typed));
  if (parts.length) parts.push("; page by ");
  else parts.push("Page by ");
  return [...parts, make("code", {}, command), ` (${told}).`];
}

start().catch((error) => {
  at("problem").hidden = false;
  at("problem").textContent = `This page could not be drawn: ${error.message}`;
  throw error;
});
