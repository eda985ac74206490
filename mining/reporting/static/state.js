// What is shown: network, checkpoint, surface, curve; and what follows from it.

const state = {
  network: null, // key
  point: null, // name of θ
  surface: null, // number
  quantity: "loss",
  curve: null, // number
  log: false,
  cap: null, // nats; null: automatic
  colormap: "Viridis",
  hidden: new Set(), // groups of curves
  drawing: Promise.resolve(), // until surface and curves are drawn
};

const surfaces = content.surfaces.map(unpack);
const curves = content.curves.map(unpack);

// Colours of Okabe and Ito, which differ for the colour-blind; dashes differ in greyscale too.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "5px,2px,1px,2px", "2px,4px"];

const network = () => content.networks.find((n) => n.key === state.network);
const ofPoint = (items) => items.filter((i) => i.network === state.network && i.point === state.point);
const ofNetwork = (items) => items.filter((i) => i.network === state.network);

/** Numbers of the surfaces of this θ; else of those on whose path it lies. */
function surfacesHere() {
  const numbers = surfaces.map((_, n) => n).filter((n) => surfaces[n].network === state.network);
  const own = numbers.filter((n) => surfaces[n].point === state.point);
  const passed = numbers.filter((n) => surfaces[n].path && surfaces[n].path.names.includes(state.point));
  own.sort((a, b) => Boolean(surfaces[b].path) - Boolean(surfaces[a].path));
  return [...own, ...passed.filter((n) => !own.includes(n))];
}

/** Numbers of the curves that belong to this θ, with the lines of the surface that is shown. */
function curvesHere() {
  return curves
    .map((_, n) => n)
    .filter((n) => {
      const curve = curves[n];
      if (curve.network !== state.network) return false;
      if (curve.of_surface !== undefined) return curve.of_surface === state.surface;
      return curve.point === state.point;
    });
}

const groupsHere = () => [...new Set(curvesHere().map((n) => curves[n].group))];
const curvesShown = () => curvesHere().filter((n) => !state.hidden.has(curves[n].group));

function styleOf(group) {
  const number = groupsHere().indexOf(group);
  return { color: COLORS[number % COLORS.length], dash: DASHES[number % DASHES.length] };
}

/** Where θ, as chosen, is on the surface that is shown. */
function thetaHere(surface) {
  if (surface.point === state.point) return [0, 0];
  const number = surface.path ? surface.path.names.indexOf(state.point) : -1;
  return number < 0 ? null : [surface.path.x[number], surface.path.y[number]];
}

/** Choose what is first seen: a θ with a surface, if there is one. */
function chooseNetwork(key) {
  state.network = key;
  const points = network().points;
  const withSurface = points.filter((p) => surfaces.some((s) => s.network === key && s.point === p));
  const kept = points.includes(state.point) ? state.point : null;
  choosePoint(kept ?? (withSurface.length ? withSurface : points).at(-1));
}

function choosePoint(point) {
  const before = state.surface === null ? null : surfaces[state.surface];
  state.point = point;
  const here = surfacesHere();
  const alike = before && here.find((n) => surfaces[n].key && surfaces[n].key === before.key);
  state.surface = alike ?? here[0] ?? null;
  chooseCurve();
}

/** Choose a curve that lies on the surface, rather than one that is only projected onto it. */
function chooseCurve() {
  const shown = curvesShown();
  if (shown.includes(state.curve)) return;
  const share = (n) => ((curves[n].place ?? {})[state.surface] ?? { share: 0 }).share;
  const placed = shown.filter((n) => share(n) > 0.5).sort((a, b) => (curves[a].of_surface ?? -1) - (curves[b].of_surface ?? -1));
  state.curve = placed[0] ?? shown[0] ?? null;
}

/** The loss above which pictures are cut off; null: nowhere. */
function capOf(items) {
  if (state.cap !== null) return state.cap;
  const caps = items.map((i) => i.cap).filter((c) => c !== null && c !== undefined);
  return caps.length ? Math.max(...caps) : null;
}
