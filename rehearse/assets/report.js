// The report's page. Everything it shows is others' text: it is set as text, never as markup.
//
// A timeline's commands, operations, faults and marks are items, kept as columns. An item belongs to one
// lane, and a lane's items do not overlap, so that what is in sight is found by binary search; where a
// pixel has many items, one bar shows the shares of their outcomes. 100,000 operations cost as much as a screen.
"use strict";
(() => {
const $ = (id) => document.getElementById(id);
const COMMAND = 0, OPERATION = 1, FAULT = 2, HARNESS = 3, EVENT = 4, PROPERTY = 5;
const KINDS = ["command", "operation", "fault", "harness", "event", "property"];
const OK = 0, INFO = 1, FAIL = 2, OPEN = 3;
const OPERATION_OUTCOMES = ["ok", "info", "fail", "never completed"];
const COMMAND_OUTCOMES = ["exit 0", "ended from outside", "failed", "still running"];
const COMMAND_KINDS = ["first", "parallel_driver", "serial_driver", "singleton_driver", "anytime", "eventually", "finally"];
const SIGNALS = { 1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 19: "STOP", 24: "XCPU", 25: "XFSZ", 31: "SYS" };
const ENDED_BY = { fault: "by a fault", limit: "at its time limit", eventually: "by eventually_", anytime_end: "when the drivers were over", timeline_end: "at the timeline's end", hang: "because it hung" };
const STATUS_WORDS = { passed: "✓ holds", failed: "✗ fails", not_reached: "○ not reached" };

const head = JSON.parse($("head").textContent);
const opened = performance.now();

// Texts and elements

/** Others' text for showing: control characters and what changes the direction of text become visible. */
function clean(text) {
  return String(text)
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\u007f/g, "␡")
    .replace(/[\u0080-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

function el(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

const integer = (n) => Number(n).toLocaleString("en-US");
const plural = (n, word) => `${integer(n)} ${word}${n === 1 ? "" : "s"}`;

function duration(ns) {
  if (ns === null || ns === undefined) return "–";
  const size = Math.abs(ns);
  if (size >= 6e10) return `${Math.trunc(ns / 6e10)} min ${((size % 6e10) / 1e9).toFixed(0)} s`;
  const [unit, name] = size >= 1e9 ? [1e9, "s"] : size >= 1e6 ? [1e6, "ms"] : size >= 1e3 ? [1e3, "µs"] : [1, "ns"];
  const value = ns / unit;
  return `${unit === 1 || Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2)} ${name}`;
}
/** A moment, as exact as `step` needs. */
function moment(ns, step) {
  const digits = Math.max(0, Math.min(9, Math.ceil(-Math.log10(step / 1e9) - 1e-9)));
  return `${(ns / 1e9).toFixed(digits)} s`;
}
const firstLine = (text) => { const end = text.indexOf("\n"); return end < 0 ? text : text.slice(0, end); };
const short = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

// Colours

let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  colours = {};
  for (const name of ["ground", "sheet", "raised", "line", "ink", "soft", "accent", "ok", "info", "fail", "open", "command", "fault", "bad", "good", "doubt", "band", "dim", "select", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
  hatches.clear();
}
const hatches = new Map();
/** Diagonal lines of a colour, so that an outcome is seen without its colour. */
function hatch(context, colour) {
  let pattern = hatches.get(colour);
  if (!pattern) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const c = tile.getContext("2d");
    c.fillStyle = colour; c.globalAlpha = 0.38; c.fillRect(0, 0, 6, 6); c.globalAlpha = 1;
    c.strokeStyle = colour; c.lineWidth = 1.6;
    c.beginPath();
    for (const x of [-6, 0, 6]) { c.moveTo(x, 6); c.lineTo(x + 6, 0); }
    c.stroke();
    pattern = context.createPattern(tile, "repeat");
    hatches.set(colour, pattern);
  }
  return pattern;
}
function colourOf(kind, outcome) {
  if (kind === FAULT || kind === EVENT) return colours.fault;
  if (kind === PROPERTY) return colours.bad;
  if (outcome === INFO) return colours.info;
  if (outcome === FAIL) return kind === COMMAND || kind === HARNESS ? colours.bad : colours.fail;
  if (outcome === OPEN) return colours.open;
  return kind === OPERATION ? colours.ok : colours.command;
}

// A timeline's items

function load(position) {
  const data = JSON.parse($(`timeline-${position}`).textContent);
  const { base, commands, operations, texts } = data;
  const faults = base.faults || [], harness = base.harness || [];
  const marks = [];
  if (base.setup !== null && base.setup !== undefined) marks.push({ at: base.setup, name: "setup_complete", details: null });
  for (const event of base.events || []) marks.push({ at: event.at_ns, name: event.name, details: event.details });
  const properties = (base.properties || []).filter((p) => p.status === "failed" && p.at_ns !== null && p.at_ns !== undefined);
  const sizes = [commands.start.length, operations.start.length, faults.length, harness.length, marks.length, properties.length];
  const bases = []; let n = 0;
  for (const size of sizes) { bases.push(n); n += size; }

  const kind = new Uint8Array(n), outcome = new Uint8Array(n), marked = new Uint8Array(n);
  const start = new Float64Array(n), end = new Float64Array(n), open = new Uint8Array(n), ref = new Int32Array(n);
  let t0 = 0, t1 = base.duration || 0;
  const put = (k, r, from, to, result) => {
    const item = bases[k] + r;
    kind[item] = k; ref[item] = r; start[item] = from; outcome[item] = result;
    open[item] = to === null || to === undefined ? 1 : 0;
    end[item] = open[item] ? Infinity : Math.max(to, from);
    if (from < t0) t0 = from;
    if (from > t1) t1 = from;
    if (!open[item] && end[item] > t1) t1 = end[item];
  };
  for (let r = 0; r < sizes[COMMAND]; r++) {
    const result = commands.end[r] === null ? OPEN : commands.ended_by[r] !== null ? INFO : commands.exit[r] === 0 ? OK : FAIL;
    put(COMMAND, r, commands.start[r], commands.end[r], result);
  }
  for (let r = 0; r < sizes[OPERATION]; r++) put(OPERATION, r, operations.start[r], operations.end[r], operations.outcome[r]);
  faults.forEach((f, r) => put(FAULT, r, f.start_ns, f.end_ns === null && !/pause|slow/.test(f.kind) ? f.start_ns : f.end_ns, OK));
  harness.forEach((h, r) => put(HARNESS, r, h.start_ns, h.end_ns, h.expected ? OK : FAIL));
  marks.forEach((m, r) => put(EVENT, r, m.at, m.at, OK));
  properties.forEach((p, r) => put(PROPERTY, r, p.at_ns, p.at_ns, FAIL));
  if (t1 <= t0) t1 = t0 + 1;
  // What a harness that was killed had begun ends with it, as far as anyone can tell.
  const until = (item) => {
    const run = kind[item] === OPERATION && harness.find((h) => h.start_ns <= start[item] && h.end_ns >= start[item]);
    return run ? run.end_ns : t1;
  };
  for (let item = 0; item < n; item++) if (open[item]) end[item] = until(item);

  const released = new Map();
  for (let r = 0; r < sizes[OPERATION]; r++) {
    const command = operations.command[r];
    if (command >= 0) {
      if (!released.has(command)) released.set(command, []);
      released.get(command).push(r);
    }
  }
  const anomaliesOf = new Map();
  data.anomalies.forEach((anomaly, at) => {
    for (const r of anomaly.operations) {
      marked[bases[OPERATION] + r] = 1;
      if (!anomaliesOf.has(r)) anomaliesOf.set(r, []);
      anomaliesOf.get(r).push(at);
    }
  });
  const byId = new Map();
  commands.id.forEach((id, r) => byId.set(id, r));
  for (const property of base.properties || []) {
    if (property.status === "failed") for (const id of property.commands || []) if (byId.has(id)) marked[bases[COMMAND] + byId.get(id)] = 1;
  }
  const byIndex = new Map();
  for (let r = 0; r < sizes[OPERATION]; r++) {
    byIndex.set(operations.index[r], r);
    if (operations.completion[r] !== null) byIndex.set(operations.completion[r], r);
  }

  const model = {
    position, data, base, commands, operations, texts, faults, harness, marks, properties, sizes, bases, n,
    kind, outcome, marked, start, end, open, ref, t0, t1, released, anomaliesOf, byId, byIndex,
    item: (k, r) => bases[k] + r,
  };
  model.bands = nemesisBands(model);
  return model;
}

/** Where the nemesis has something broken: from its start to its stop, as Jepsen shades it. */
function nemesisBands(m) {
  const stops = { kill: "start", pause: "resume", start: "stop", hammer: "recover" };
  const bands = [], running = new Map();
  const { operations } = m;
  const nemesis = operations.processes.map((name) => !/^-?\d+$/.test(name));
  for (let r = 0; r < m.sizes[OPERATION]; r++) {
    if (!nemesis[operations.process[r]]) continue;
    const f = operations.fs[operations.f[r]];
    const at = operations.end[r] ?? operations.start[r];
    const ended = running.get(f);
    if (ended !== undefined) {
      bands.push({ from: ended.at, to: at, name: ended.f });
      running.delete(f);
    } else {
      const stop = f.startsWith("start-") ? `stop-${f.slice(6)}` : stops[f];
      if (stop && !running.has(stop)) running.set(stop, { at: operations.start[r], f });
    }
  }
  for (const { at, f } of running.values()) bands.push({ from: at, to: m.t1, name: f });
  return bands;
}

function nameOf(m, item) {
  const r = m.ref[item];
  switch (m.kind[item]) {
    case COMMAND: return m.texts[m.commands.name[r]];
    case OPERATION: return m.operations.fs[m.operations.f[r]];
    case FAULT: return m.faults[r].kind;
    case HARNESS: return `harness, pid ${m.harness[r].pid}`;
    case EVENT: return m.marks[r].name;
    default: return m.properties[r].name;
  }
}
function titleOf(m, item) {
  const r = m.ref[item];
  switch (m.kind[item]) {
    case COMMAND: return `${nameOf(m, item)} #${m.commands.id[r]}`;
    case OPERATION: return `${nameOf(m, item)} #${m.operations.index[r]}${m.operations.uncertainty.length > 1 ? ` of run ${m.operations.run[r] + 1}` : ""}`;
    case FAULT: return `Fault: ${m.faults[r].kind}`;
    case PROPERTY: return `✗ ${m.properties[r].name}`;
    default: return nameOf(m, item);
  }
}
const statusText = (exit, signal) => (exit !== null && exit !== undefined ? `exit ${exit}` : signal !== null && signal !== undefined ? `SIG${SIGNALS[signal] || signal}` : "running at the end");
function outcomeOf(m, item) {
  const r = m.ref[item];
  switch (m.kind[item]) {
    case COMMAND: {
      const by = m.commands.ended_by[r];
      const reason = by === null ? "" : `, ended ${ENDED_BY[m.texts[by]] || m.texts[by]}`;
      return statusText(m.commands.exit[r], m.commands.signal[r]) + reason;
    }
    case OPERATION: return OPERATION_OUTCOMES[m.outcome[item]];
    case HARNESS: {
      const status = m.harness[r].status;
      return (status ? statusText(status.exit, status.signal) : "running at the end") + (m.harness[r].expected ? "" : ", unexpected");
    }
    case PROPERTY: return "fails";
    default: return "";
  }
}
/** An operation's value: what it returned, else what it was asked. */
function valueOf(m, r) {
  const result = m.texts[m.operations.result[r]];
  return result && result !== "nil" && result !== "null" ? result : m.texts[m.operations.value[r]];
}
function summaryOf(m, item) {
  const r = m.ref[item];
  switch (m.kind[item]) {
    case COMMAND: return m.texts[m.commands.stdout[r]] || m.texts[m.commands.stderr[r]];
    case OPERATION: return valueOf(m, r);
    case EVENT: return m.marks[r].details === null ? "" : JSON.stringify(m.marks[r].details);
    case PROPERTY: return m.properties[r].detail;
    default: return "";
  }
}

// What the reader has chosen

const state = {
  view: "overview", model: null, t0: 0, t1: 1, scroll: 0, selected: -1, hover: -1, cycle: null,
  hidden: { outcome: new Set(), kind: new Set(), f: new Set(), process: new Set(), command: new Set() },
  query: "", found: null, matches: [], lanes: [], height: 0, laneOf: null,
  group: "f", silenced: new Set(), page: 0, sort: "start", descending: false,
};

// Lanes

function lowerBound(array, value) {
  let low = 0, high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (array[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}
function shown(m, item) {
  const k = m.kind[item], r = m.ref[item], hidden = state.hidden;
  if (hidden.kind.has(k)) return false;
  if (k === COMMAND) return !hidden.outcome.has(m.outcome[item]) && !hidden.command.has(m.commands.name[r]);
  if (k === OPERATION) return !hidden.outcome.has(m.outcome[item]) && !hidden.f.has(m.operations.f[r]) && !hidden.process.has(m.operations.process[r]);
  return true;
}
function byStart(m, items) {
  for (let i = 1; i < items.length; i++) {
    if (m.start[items[i - 1]] > m.start[items[i]]) return items.sort((a, b) => m.start[a] - m.start[b] || a - b);
  }
  return items;
}
/** Distributes items over as few lanes as hold them without overlap. */
function pack(m, items) {
  const lanes = [], ends = [];
  for (const item of byStart(m, items)) {
    let lane = 0;
    while (lane < ends.length && ends[lane] > m.start[item]) lane++;
    if (lane === ends.length) { ends.push(0); lanes.push([]); }
    ends[lane] = m.end[item];
    lanes[lane].push(item);
  }
  return lanes;
}
function layOut() {
  const m = state.model;
  if (!m) return;
  const lanes = [];
  let y = 4;
  const add = (label, items, height, more) => {
    const lane = { label, y, height, items: Int32Array.from(items), ...more };
    const n = lane.items.length;
    lane.starts = new Float64Array(n); lane.ends = new Float64Array(n);
    lane.items.forEach((item, i) => { lane.starts[i] = m.start[item]; lane.ends[i] = m.end[item]; });
    lanes.push(lane);
    y += height;
  };
  const gap = () => { if (lanes.length) y += 8; };
  const range = (k) => { const items = []; for (let r = 0; r < m.sizes[k]; r++) if (shown(m, m.bases[k] + r)) items.push(m.bases[k] + r); return items; };

  const marks = byStart(m, [...range(EVENT), ...range(PROPERTY)]);
  if (marks.length) add("events", marks, 20, { points: true });
  pack(m, range(HARNESS)).forEach((items, i) => add(i ? "" : "harness", items, 18));
  const faults = range(FAULT);
  if (faults.length) { gap(); pack(m, faults).forEach((items, i) => add(i ? "" : "faults", items, 18, { points: true })); }

  const byName = new Map();
  for (const item of range(COMMAND)) {
    const name = m.commands.name[m.ref[item]];
    if (!byName.has(name)) byName.set(name, []);
    byName.get(name).push(item);
  }
  const order = (name) => { const at = COMMAND_KINDS.findIndex((kind) => m.texts[name].startsWith(kind)); return at < 0 ? 99 : at; };
  for (const name of [...byName.keys()].sort((a, b) => order(a) - order(b) || m.texts[a].localeCompare(m.texts[b]))) {
    const items = byName.get(name);
    gap();
    pack(m, items).forEach((lane, i) => add(i === 0 ? m.texts[name] : i === 1 ? plural(items.length, "command") : "", lane, 17, { soft: i > 0 }));
  }

  const operations = range(OPERATION);
  if (operations.length) {
    gap();
    const byProcess = new Map();
    for (const item of byStart(m, operations)) {
      const process = m.operations.process[m.ref[item]];
      if (!byProcess.has(process)) byProcess.set(process, []);
      byProcess.get(process).push(item);
    }
    const label = (process) => m.operations.processes[process];
    const isClient = (process) => /^-?\d+$/.test(label(process));
    const processes = [...byProcess.keys()].sort((a, b) => isClient(a) - isClient(b) || Number(label(a)) - Number(label(b)) || label(a).localeCompare(label(b)));
    if (processes.length <= 20) {
      // A process does one thing at a time; two runs of the harness may seem to overlap.
      for (const p of processes) pack(m, byProcess.get(p)).forEach((items, i) => add(i ? "" : isClient(p) ? `process ${label(p)}` : label(p), items, 18));
    } else {
      // Each crash makes a new process: those that follow each other share a lane, as they share a thread.
      for (const p of processes.filter((p) => !isClient(p))) pack(m, byProcess.get(p)).forEach((items, i) => add(i ? "" : label(p), items, 18));
      const clients = processes.filter(isClient).map((p) => ({ p, items: byProcess.get(p) }));
      clients.sort((a, b) => m.start[a.items[0]] - m.start[b.items[0]] || Number(label(a.p)) - Number(label(b.p)));
      const rows = [];
      for (const { p, items } of clients) {
        const from = m.start[items[0]];
        let row = rows.find((r) => r.until <= from);
        if (!row) { row = { names: [], items: [], until: 0 }; rows.push(row); }
        row.names.push(label(p));
        for (const item of items) row.items.push(item);
        row.until = m.end[items[items.length - 1]];
      }
      rows.sort((a, b) => Number(a.names[0]) - Number(b.names[0]));
      for (const row of rows) {
        const names = row.names;
        add(names.length === 1 ? `process ${names[0]}` : `process ${names.slice(0, 2).join(", ")}${names.length > 2 ? `, … (${names.length})` : ""}`, row.items, 18);
      }
    }
  }
  state.lanes = lanes;
  for (const lane of lanes) { lane.naturalY = lane.y; lane.naturalHeight = lane.height; }
  state.natural = y + 8;
  state.height = state.natural; state.scale = 1;
  state.laneOf = new Int32Array(m.n).fill(-1);
  lanes.forEach((lane, at) => { for (const item of lane.items) state.laneOf[item] = at; });
  count();
  $("spacer").style.height = `${state.height + AXIS}px`;
}
/** Few lanes are higher, so that they fill what room there is. */
function stretch(room) {
  const scale = Math.max(1, Math.min(1.8, room / state.natural));
  if (scale === state.scale) return;
  state.scale = scale;
  for (const lane of state.lanes) { lane.y = lane.naturalY * scale; lane.height = lane.naturalHeight * scale; }
  state.height = state.natural * scale;
  $("spacer").style.height = `${Math.floor(state.height + AXIS)}px`;
}
/** How many items of each outcome, marked and found, are before each item of a lane. */
function count() {
  const m = state.model, found = state.found;
  for (const lane of state.lanes) {
    const n = lane.items.length;
    const sums = [0, 1, 2, 3].map(() => new Int32Array(n + 1));
    const matched = found ? new Int32Array(n + 1) : null;
    const marks = [];
    for (let i = 0; i < n; i++) {
      const item = lane.items[i];
      for (let o = 0; o < 4; o++) sums[o][i + 1] = sums[o][i];
      sums[m.outcome[item]][i + 1]++;
      if (matched) matched[i + 1] = matched[i] + found[item];
      if (m.marked[item]) marks.push(i);
    }
    lane.sums = sums; lane.matched = matched; lane.marks = Int32Array.from(marks);
    lane.kind = n ? m.kind[lane.items[0]] : OPERATION;
  }
}

// The chart

const AXIS = 26;
let GUTTER = 190;
const chart = $("chart"), context = chart.getContext("2d");
const map = $("map"), mapContext = map.getContext("2d");
const size = { width: 0, height: 0 };
const frames = [];

function fitCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * ratio)), h = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
}
const plotWidth = () => Math.max(10, size.width - GUTTER);
const toX = (t) => GUTTER + ((t - state.t0) / (state.t1 - state.t0)) * plotWidth();
const toTime = (x) => state.t0 + ((x - GUTTER) / plotWidth()) * (state.t1 - state.t0);

function niceStep(span, most) {
  const raw = span / Math.max(1, most), power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((f) => f * power).find((step) => step >= raw) || raw;
}
function axis(c, x0, width, y, height, gridTo) {
  const step = niceStep(state.t1 - state.t0, width / 110);
  c.font = "11px " + fonts.sans; c.textBaseline = "middle"; c.textAlign = "left";
  for (let t = Math.ceil(state.t0 / step) * step; t <= state.t1; t += step) {
    const x = Math.round(x0 + ((t - state.t0) / (state.t1 - state.t0)) * width) + 0.5;
    c.strokeStyle = colours.line; c.lineWidth = 1;
    c.beginPath(); c.moveTo(x, y); c.lineTo(x, gridTo); c.stroke();
    c.fillStyle = colours.soft;
    c.fillText(moment(Math.abs(t) < step / 2 ? 0 : t, step), x + 4, y + height / 2);
  }
}
const fonts = { sans: "sans-serif", mono: "monospace" };

let scheduled = 0;
function redraw() {
  if (!scheduled) scheduled = requestAnimationFrame(() => { scheduled = 0; drawNow(); });
}
function drawNow() {
  if (!state.model) return;
  const before = performance.now();
  if (state.view === "timeline" || printing) { drawChart(); drawMap(); }
  if (state.view === "latency" || printing) drawLatency();
  frames.push(performance.now() - before);
  if (frames.length > 600) frames.shift();
  const { t0, t1, model: m } = state;
  $("range").textContent = t0 <= m.t0 && t1 >= m.t1 ? duration(t1 - t0) : `${moment(t0, (t1 - t0) / 100)} – ${moment(t1, (t1 - t0) / 100)}, ${duration(t1 - t0)}`;
}

function drawChart() {
  const m = state.model, scroller = $("scroller");
  size.width = scroller.clientWidth;
  size.height = Math.max(60, scroller.clientHeight);
  stretch(printing ? 0 : size.height - AXIS);
  if (printing) size.height = state.height + AXIS;
  GUTTER = Math.min(210, Math.max(90, size.width * 0.2));
  fitCanvas(chart, size.width, size.height);
  state.scroll = printing ? 0 : scroller.scrollTop;
  const c = context, { width, height } = size, top = AXIS - state.scroll;
  c.fillStyle = colours.sheet; c.fillRect(0, 0, width, height);
  c.save();
  c.beginPath(); c.rect(GUTTER, 0, width - GUTTER, height); c.clip();
  c.fillStyle = colours.band;
  for (const band of m.bands) {
    const x0 = toX(band.from), x1 = toX(band.to);
    if (x1 >= GUTTER && x0 <= width) c.fillRect(x0, AXIS, Math.max(1, x1 - x0), height);
  }
  axis(c, GUTTER, plotWidth(), 0, AXIS, height);
  c.restore();

  const visible = state.lanes.filter((lane) => top + lane.y + lane.height > AXIS && top + lane.y < height);
  c.save();
  c.beginPath(); c.rect(GUTTER, AXIS, width - GUTTER, height - AXIS); c.clip();
  const batch = new Map();
  const rect = (style, x, y, w, h) => {
    let list = batch.get(style);
    if (!list) batch.set(style, (list = []));
    list.push(x, y, w, h);
  };
  const labels = [];
  for (const lane of visible) (lane.points ? drawPoints : drawLane)(c, m, lane, top, rect, labels);
  for (const [style, list] of batch) {
    c.fillStyle = style;
    for (let i = 0; i < list.length; i += 4) c.fillRect(list[i], list[i + 1], list[i + 2], list[i + 3]);
  }
  c.font = "11px " + fonts.sans; c.textBaseline = "middle"; c.textAlign = "left";
  for (const [text, x, y, room, style] of labels) {
    c.save(); c.beginPath(); c.rect(x, y - 9, room, 18); c.clip();
    if (style === colours.ink) { c.strokeStyle = colours.sheet; c.lineWidth = 3; c.lineJoin = "round"; c.strokeText(text, x, y + 0.5); }
    c.fillStyle = style; c.fillText(text, x, y + 0.5); c.restore();
  }
  for (const lane of visible) drawMarks(c, lane, top);
  drawFaultsOnTargets(c, m, top);
  drawLinks(c, m, top);
  c.restore();

  c.fillStyle = colours.sheet; c.fillRect(0, 0, GUTTER, height);
  c.strokeStyle = colours.line; c.lineWidth = 1;
  c.beginPath(); c.moveTo(GUTTER - 0.5, 0); c.lineTo(GUTTER - 0.5, height); c.moveTo(0, AXIS - 0.5); c.lineTo(width, AXIS - 0.5); c.stroke();
  c.save();
  c.beginPath(); c.rect(0, AXIS, GUTTER - 8, height - AXIS); c.clip();
  c.font = "12px " + fonts.sans; c.textBaseline = "middle"; c.textAlign = "left";
  for (const lane of visible) {
    c.fillStyle = lane.soft ? colours.soft : colours.ink;
    if (lane.label) c.fillText(fitText(c, clean(lane.label), GUTTER - 18), 10, top + lane.y + lane.height / 2);
  }
  c.restore();
  const selected = state.selected >= 0 ? `, ${titleOf(m, state.selected)} selected` : "";
  chart.setAttribute("aria-label", `Timeline of ${plural(m.sizes[COMMAND], "command")} and ${plural(m.sizes[OPERATION], "operation")}${selected}`);
}
const fitted = new Map();
function fitText(c, text, room) {
  const key = `${room | 0} ${text}`;
  let result = fitted.get(key);
  if (result === undefined) {
    result = text;
    if (c.measureText(text).width > room) {
      let low = 0, high = text.length;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (c.measureText(`${text.slice(0, middle)}…`).width <= room) low = middle; else high = middle - 1;
      }
      result = `${text.slice(0, low)}…`;
    }
    if (fitted.size > 5000) fitted.clear();
    fitted.set(key, result);
  }
  return result;
}
function drawLane(c, m, lane, top, rect, labels) {
  const { starts, ends, items, sums, matched, kind } = lane;
  const y = top + lane.y + 2, h = lane.height - 4, n = items.length;
  const perPixel = (state.t1 - state.t0) / plotWidth();
  const BUCKET = 2;
  let i = lowerBound(ends, state.t0);
  while (i < n && starts[i] <= state.t1) {
    const x0 = toX(starts[i]), bucket = Math.floor(x0 / BUCKET) * BUCKET;
    const until = toTime(bucket + BUCKET);
    if (i + 1 < n && starts[i + 1] < until) {
      // Many in one place: the shares of their outcomes, each at least two pixels, so that none is lost.
      let j = lowerBound(starts, until);
      if (j <= i) j = i + 1;
      if (ends[j - 1] > until + perPixel && j - 1 > i) j--;
      const dim = matched && matched[j] === matched[i];
      let from = y;
      const counts = [0, 1, 2, 3].map((o) => sums[o][j] - sums[o][i]), all = j - i;
      const kinds = counts.filter((count) => count > 0).length;
      let room = h;
      for (const o of [OPEN, INFO, FAIL]) {
        if (!counts[o]) continue;
        const part = kinds === 1 ? h : Math.max(3, Math.min(h - 3 * (kinds - 1), Math.round((h * counts[o]) / all)));
        rect(dim ? colours.dim : colourOf(kind, o), bucket, from, BUCKET, part);
        from += part; room -= part;
      }
      if (counts[OK] && room > 0) rect(dim ? colours.dim : colourOf(kind, OK), bucket, from, BUCKET, room);
      i = j;
      continue;
    }
    const item = items[i], x1 = toX(ends[i]);
    const left = Math.max(x0, GUTTER - 0.5), right = Math.min(x1, size.width + 4);
    const w = Math.max(right - left > 5 ? right - left - 1 : right - left, 1.5);
    const dim = matched && matched[i + 1] === matched[i];
    const o = m.outcome[item];
    const colour = dim ? colours.dim : colourOf(kind, o);
    if (o === FAIL && kind === OPERATION) rect(colour, left, y + h * 0.45, w, h * 0.55);
    else if (o === INFO && w > 6) { rect(hatch(c, colour), left, y, w, h); rect(colour, left, y, 2, h); }
    else if (o === OPEN && w > 6) { rect(colour, left, y, w, 1.5); rect(colour, left, y + h - 1.5, w, 1.5); rect(colour, left, y, 1.5, h); }
    else rect(colour, left, y, w, h);
    if (o === FAIL && kind !== OPERATION && w > 6) rect(hatch(c, colours.sheet), left, y + h - 4, w, 4);
    if (w > 46 && !dim) {
      const failed = o === FAIL && kind === OPERATION;
      const text = kind === OPERATION ? `${nameOf(m, item)} ${firstLine(short(valueOf(m, m.ref[item]), 120))}` : kind === COMMAND ? `#${m.commands.id[m.ref[item]]} ${outcomeOf(m, item)}` : outcomeOf(m, item);
      const inset = m.marked[item] && (kind === OPERATION || o !== FAIL) ? 17 : 5;
      labels.push([clean(text), left + inset, failed ? y + h * 0.36 : y + h / 2, w - inset - 3, o === OK ? colours.sheet : o === FAIL && kind !== OPERATION ? colours.sheet : colours.ink]);
    }
    i++;
  }
}
/** Moments, and faults that may be moments. */
function drawPoints(c, m, lane, top, rect) {
  const y = top + lane.y + lane.height / 2;
  const dense = lowerBound(lane.starts, state.t1) - lowerBound(lane.ends, state.t0) > plotWidth() / 8;
  let last = -99;
  for (let i = lowerBound(lane.ends, state.t0); i < lane.items.length && lane.starts[i] <= state.t1; i++) {
    const item = lane.items[i], x0 = toX(lane.starts[i]), x1 = toX(lane.ends[i]);
    const colour = state.found && !state.found[item] ? colours.dim : colourOf(m.kind[item], m.outcome[item]);
    if (x1 - x0 > 8) {
      rect(hatch(c, colour), Math.max(x0, GUTTER - 2), y - 6, Math.min(x1, size.width) - Math.max(x0, GUTTER - 2), 12);
      rect(colour, x0, y - 6, 2, 12);
      continue;
    }
    if (x0 - last < (dense ? 2 : 1)) continue;
    last = x0;
    if (dense && m.kind[item] !== PROPERTY) { rect(colour, x0, y - 6, 1, 12); continue; }
    c.fillStyle = colour; c.strokeStyle = colour; c.lineWidth = 2;
    c.beginPath();
    if (m.kind[item] === PROPERTY) { c.moveTo(x0 - 5, y - 5); c.lineTo(x0 + 5, y + 5); c.moveTo(x0 + 5, y - 5); c.lineTo(x0 - 5, y + 5); c.stroke(); }
    else if (m.kind[item] === EVENT) { c.moveTo(x0, y - 6); c.lineTo(x0 + 5, y); c.lineTo(x0, y + 6); c.lineTo(x0 - 5, y); c.fill(); }
    else { c.moveTo(x0 - 5, y - 6); c.lineTo(x0 + 5, y - 6); c.lineTo(x0, y + 6); c.fill(); }
  }
}
/** A triangle for each operation of an anomaly, and each command that a failed property is about. */
function drawMarks(c, lane, top) {
  const { marks, starts, ends } = lane;
  let last = -99;
  c.fillStyle = colours.bad; c.strokeStyle = colours.sheet; c.lineWidth = 1;
  for (let k = 0; k < marks.length; k++) {
    const from = starts[marks[k]], to = ends[marks[k]];
    if (to < state.t0) continue;
    if (from > state.t1) break;
    // A command that failed is red itself.
    if (lane.kind === COMMAND && state.model.outcome[lane.items[marks[k]]] === FAIL) continue;
    const x = Math.max(toX(from) + Math.min(7, (toX(to) - toX(from)) / 2), GUTTER + 4);
    if (x - last < 3) continue;
    last = x;
    const y = top + lane.y + lane.height - 1;
    c.beginPath(); c.moveTo(x, y - 11); c.lineTo(x + 6, y); c.lineTo(x - 6, y); c.closePath(); c.fill(); c.stroke();
  }
}
function drawFaultsOnTargets(c, m, top) {
  if (state.hidden.kind.has(FAULT)) return;
  c.fillStyle = colours.fault;
  const visible = m.faults.filter((fault) => fault.start_ns >= state.t0 && fault.start_ns <= state.t1);
  if (visible.length > plotWidth() / 4) return; // The lane of the faults says enough.
  visible.forEach((fault) => {
    const target = fault.target === null || fault.target === undefined ? -1 : m.byId.get(fault.target) ?? -1;
    if (target < 0) return;
    const lane = state.lanes[state.laneOf[m.item(COMMAND, target)]];
    if (!lane) return;
    const x = toX(fault.start_ns), y = top + lane.y + 1;
    if (y < 0 || y > size.height) return;
    c.beginPath(); c.moveTo(x - 4, y); c.lineTo(x + 4, y); c.lineTo(x, y + 7); c.fill();
  });
}
function place(item, top) {
  const m = state.model, lane = state.lanes[state.laneOf[item]];
  if (!lane) return null;
  const x0 = Math.max(toX(m.start[item]), GUTTER - 10), x1 = Math.min(toX(m.end[item]), size.width + 10);
  return { x0, x1, y: top + lane.y + 1, h: lane.height - 2, middle: (x0 + Math.max(x1, x0)) / 2 };
}
function linkedTo(item) {
  const m = state.model, r = m.ref[item];
  if (m.kind[item] === OPERATION) return m.operations.command[r] >= 0 ? [m.item(COMMAND, m.operations.command[r])] : [];
  if (m.kind[item] === COMMAND) return (m.released.get(r) || []).map((op) => m.item(OPERATION, op));
  if (m.kind[item] === FAULT && m.faults[r].target !== null && m.byId.has(m.faults[r].target)) return [m.item(COMMAND, m.byId.get(m.faults[r].target))];
  return [];
}
function drawLinks(c, m, top) {
  const outline = (item, colour, width) => {
    const at = place(item, top);
    if (!at) return null;
    c.strokeStyle = colour; c.lineWidth = width;
    c.strokeRect(at.x0 - 1.5, at.y - 0.5, Math.max(at.x1 - at.x0, 2) + 3, at.h + 1);
    return at;
  };
  const curve = (a, b, colour, dashed) => {
    if (!a || !b) return;
    c.strokeStyle = colour; c.lineWidth = 1.6; c.setLineDash(dashed ? [4, 4] : []);
    const down = b.y > a.y, y0 = down ? a.y + a.h : a.y, y1 = down ? b.y : b.y + b.h;
    c.beginPath(); c.moveTo(a.middle, y0);
    c.bezierCurveTo(a.middle, y0 + (y1 - y0) / 2, b.middle, y0 + (y1 - y0) / 2, b.middle, y1);
    c.stroke(); c.setLineDash([]);
  };
  if (state.cycle) {
    const places = state.cycle.operations.slice(0, 60).map((r) => outline(m.item(OPERATION, r), colours.bad, 2));
    const steps = state.cycle.steps;
    if (steps.length) {
      places.forEach((at, i) => {
        const next = places[(i + 1) % places.length];
        if (places.length < 2 || !at || !next) return;
        // There and back are two lines.
        const aside = next.y > at.y ? -16 : 16;
        curve({ ...at, middle: at.middle + aside }, { ...next, middle: next.middle + aside }, colours.bad, false);
        const x = (at.middle + next.middle) / 2 + aside, y = (at.y + next.y) / 2 + 8;
        if (!steps[i]) return;
        c.font = "600 11px " + fonts.mono;
        const w = c.measureText(steps[i]).width + 8;
        c.fillStyle = colours.sheet; c.fillRect(x - w / 2, y - 8, w, 16);
        c.strokeStyle = colours.bad; c.lineWidth = 1; c.strokeRect(x - w / 2, y - 8, w, 16);
        c.fillStyle = colours.bad; c.textAlign = "center"; c.fillText(clean(steps[i]), x, y); c.textAlign = "left";
      });
    }
  }
  if (state.hover >= 0 && state.hover !== state.selected) outline(state.hover, colours.soft, 1.5);
  if (state.selected >= 0) {
    const at = outline(state.selected, colours.select, 2.5);
    for (const other of linkedTo(state.selected).slice(0, 200)) {
      const guessed = m.kind[other] === OPERATION ? m.operations.how[m.ref[other]] === "time" : m.kind[state.selected] === OPERATION && m.operations.how[m.ref[state.selected]] === "time";
      curve(at, outline(other, colours.accent, 2), colours.accent, guessed);
    }
  }
}

// Where everything is, small

let density = null;
function drawMap() {
  const m = state.model, width = Math.max(100, map.parentElement.clientWidth - 38), height = 44, c = mapContext;
  fitCanvas(map, width, height);
  if (!density || density.width !== width || density.model !== m) {
    const bins = [0, 1, 2, 3].map(() => new Uint32Array(Math.ceil(width / 2)));
    const marks = new Uint8Array(Math.ceil(width));
    const k = m.sizes[OPERATION] ? OPERATION : COMMAND;
    for (let r = 0; r < m.sizes[k]; r++) {
      const item = m.bases[k] + r, x = ((m.start[item] - m.t0) / (m.t1 - m.t0)) * (width - 1);
      bins[m.outcome[item]][Math.floor(x / 2)]++;
    }
    for (let item = 0; item < m.n; item++) if (m.marked[item] || m.kind[item] === PROPERTY) marks[Math.floor(((m.start[item] - m.t0) / (m.t1 - m.t0)) * (width - 1))] = 1;
    let most = 1;
    for (let x = 0; x < bins[0].length; x++) most = Math.max(most, bins[0][x] + bins[1][x] + bins[2][x] + bins[3][x]);
    density = { width, model: m, bins, marks, most, kind: k };
  }
  c.clearRect(0, 0, width, height);
  for (let x = 0; x < density.bins[0].length; x++) {
    let y = height;
    for (const o of [OK, FAIL, INFO, OPEN]) {
      const count = density.bins[o][x];
      if (!count) continue;
      const h = Math.max(1.5, (count / density.most) * (height - 10));
      c.fillStyle = colourOf(density.kind, o);
      c.fillRect(x * 2, y - h, 2, h);
      y -= h;
    }
  }
  c.fillStyle = colours.bad;
  for (let x = 0; x < density.marks.length; x++) {
    if (density.marks[x]) { c.beginPath(); c.moveTo(x - 4, 0); c.lineTo(x + 4, 0); c.lineTo(x, 8); c.fill(); }
  }
  const x0 = ((state.t0 - m.t0) / (m.t1 - m.t0)) * width, x1 = ((state.t1 - m.t0) / (m.t1 - m.t0)) * width;
  c.fillStyle = colours.ground; c.globalAlpha = 0.72;
  c.fillRect(0, 0, x0, height); c.fillRect(x1, 0, width - x1, height);
  c.globalAlpha = 1;
  c.strokeStyle = colours.accent; c.lineWidth = 1.5;
  c.strokeRect(x0 + 0.75, 0.75, Math.max(2, x1 - x0 - 1.5), height - 1.5);
}

// Moving about

function setRange(t0, t1) {
  const m = state.model, whole = m.t1 - m.t0, least = 50;
  let span = Math.min(Math.max(t1 - t0, least), whole * 1.04);
  const middle = (t0 + t1) / 2;
  t0 = middle - span / 2; t1 = middle + span / 2;
  const low = m.t0 - whole * 0.02, high = m.t1 + whole * 0.02;
  if (t0 < low) { t1 += low - t0; t0 = low; }
  if (t1 > high) { t0 -= t1 - high; t1 = high; }
  state.t0 = Math.max(t0, low); state.t1 = Math.min(t1, high);
  if (state.t1 - state.t0 < 1) state.t1 = state.t0 + 1;
  redraw();
}
function zoom(factor, at = (state.t0 + state.t1) / 2) {
  setRange(at - (at - state.t0) * factor, at + (state.t1 - at) * factor);
}
const pan = (part) => setRange(state.t0 + (state.t1 - state.t0) * part, state.t1 + (state.t1 - state.t0) * part);
function fitAll() { const m = state.model, margin = (m.t1 - m.t0) * 0.01; setRange(m.t0 - margin, m.t1 + margin); }
function zoomTo(items) {
  const m = state.model;
  let from = Infinity, to = -Infinity;
  for (const item of items) { from = Math.min(from, m.start[item]); to = Math.max(to, m.end[item]); }
  if (from > to) return;
  const margin = Math.max((to - from) * 0.8, (m.t1 - m.t0) / 2000);
  setRange(from - margin, to + margin);
}
/** Scrolls and moves so that an item can be seen, and leaves the zoom if that does. */
function reveal(item) {
  const m = state.model;
  if (!shown(m, item)) clearFilters();
  const span = state.t1 - state.t0, length = m.end[item] - m.start[item];
  if (m.start[item] < state.t0 || m.start[item] > state.t1 || length < span / 4000) {
    const next = length > 0 ? Math.min(span, Math.max(length * 40, 2e4)) : span;
    setRange(m.start[item] - next * 0.4, m.start[item] + next * 0.6);
  }
  const lane = state.lanes[state.laneOf[item]], scroller = $("scroller");
  if (!lane) return;
  const room = scroller.clientHeight - AXIS;
  if (lane.y < scroller.scrollTop || lane.y + lane.height > scroller.scrollTop + room) scroller.scrollTop = lane.y - room / 2;
}
function pick(x, y) {
  const m = state.model;
  if (!m || x < GUTTER || y < AXIS) return -1;
  const at = y - AXIS + state.scroll;
  const lane = state.lanes.find((l) => at >= l.y && at < l.y + l.height);
  if (!lane) return -1;
  const t = toTime(x), near = ((state.t1 - state.t0) / plotWidth()) * (lane.points ? 6 : 3);
  const i = lowerBound(lane.ends, t);
  let best = -1, distance = near;
  for (const j of [i - 2, i - 1, i, i + 1]) {
    if (j < 0 || j >= lane.items.length) continue;
    const away = t < lane.starts[j] ? lane.starts[j] - t : t > lane.ends[j] ? t - lane.ends[j] : 0;
    if (away < distance || (away === 0 && best < 0)) { best = lane.items[j]; distance = away; }
  }
  // What is marked has the larger target.
  const wide = near * 2.5;
  for (let k = lowerBound(lane.marks, Math.max(0, i - 50)); k < lane.marks.length; k++) {
    const j = lane.marks[k];
    if (lane.starts[j] > t + wide) break;
    if (Math.abs(lane.starts[j] - t) < wide && distance > 0) return lane.items[j];
  }
  return best;
}

function tooltip(item, x, y) {
  const tip = $("tip"), m = state.model;
  if (item < 0) { tip.hidden = true; return; }
  const lines = [el("b", {}, clean(short(titleOf(m, item), 120)))];
  const outcome = outcomeOf(m, item), long = m.open[item] ? null : m.end[item] - m.start[item];
  lines.push(el("span", {}, clean([outcome, long ? duration(long) : "", `at ${moment(m.start[item], 1e5)}`].filter(Boolean).join(" · "))));
  const summary = summaryOf(m, item);
  if (summary) lines.push(el("span", { class: "mono" }, clean(short(summary, 300))));
  for (const at of (m.kind[item] === OPERATION && m.anomaliesOf.get(m.ref[item])) || []) {
    const anomaly = m.data.anomalies[at];
    lines.push(el("b", {}, `▲ ${clean([anomaly.checker, anomaly.kind].filter(Boolean).join(": "))}`));
  }
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(6, y - box.height - 12) : y + 18}px`;
}

function select(item, { show = true, keepCycle = false } = {}) {
  state.selected = item;
  if (!keepCycle) state.cycle = null;
  if (item >= 0 && show) reveal(item);
  details();
  remember();
  redraw();
}

// Details

function pair(rows, name, value) { if (value !== "" && value !== null && value !== undefined) rows.push(el("dt", {}, name), el("dd", {}, value)); }
const quoted = (title, text, more) => (text ? [el("h3", {}, title, more ? el("span", { class: "soft" }, ` ${more}`) : null), el("pre", {}, clean(text))] : []);
const bytes = (text, total) => (total > 4096 ? `${integer(total)} bytes, the first 4,096 of them` : "");
function goTo(item, label, title) {
  return el("button", { class: "small", title: title || null, onclick: () => { setView("timeline"); select(item); } }, clean(label));
}
function details() {
  const box = $("details"), m = state.model, item = state.selected;
  if (!m || item < 0) { box.replaceChildren(); return; }
  const r = m.ref[item], rows = [], parts = [];
  pair(rows, "Status", clean(outcomeOf(m, item)));
  pair(rows, "From", moment(m.start[item], 1e3));
  if (m.end[item] > m.start[item]) {
    pair(rows, "To", m.open[item] ? "the end" : moment(m.end[item], 1e3));
    pair(rows, "Took", m.open[item] ? "" : duration(m.end[item] - m.start[item]));
  }
  if (m.kind[item] === COMMAND) {
    const c = m.commands;
    pair(rows, "Kind", clean(m.texts[c.kind[r]]));
    pair(rows, "Process id", String(c.pid[r]));
    pair(rows, "Template", clean(m.texts[c.template[r]]));
    pair(rows, "FIFO", clean(m.texts[c.fifos[r]]));
    const operations = m.released.get(r) || [];
    if (operations.length) {
      parts.push(el("h3", {}, operations.length === 1 ? "Released the operation" : "Released the operations"));
      parts.push(el("div", { class: "links", "data-links": "operations" }, operations.slice(0, 50).map((op) => goTo(m.item(OPERATION, op), `${titleOf(m, m.item(OPERATION, op))} ${OPERATION_OUTCOMES[m.operations.outcome[op]]} →`)), operations.some((op) => m.operations.how[op] === "time") && el("span", { class: "soft" }, "inferred from the times: nothing else fits")));
    }
    const faults = m.faults.map((f, at) => [f, at]).filter(([f]) => f.target === c.id[r]);
    if (faults.length) parts.push(el("h3", {}, "Faults"), el("div", { class: "links" }, faults.map(([f, at]) => goTo(m.item(FAULT, at), `${f.kind} at ${moment(f.start_ns, 1e6)}`))));
    for (const p of (m.base.properties || []).filter((p) => p.status === "failed" && (p.commands || []).includes(c.id[r]))) {
      parts.push(el("div", { class: "anomaly" }, el("b", {}, clean(p.name)), el("p", {}, clean(p.detail))));
    }
    parts.push(...quoted("stdout", m.texts[c.stdout[r]], bytes("", c.stdout_bytes[r])), ...quoted("stderr", m.texts[c.stderr[r]], bytes("", c.stderr_bytes[r])));
  } else if (m.kind[item] === OPERATION) {
    const o = m.operations;
    pair(rows, "Process", clean(o.processes[o.process[r]]));
    pair(rows, "Index", o.completion[r] === null ? String(o.index[r]) : `${o.index[r]}, completed by ${o.completion[r]}`);
    for (const at of m.anomaliesOf.get(r) || []) {
      const a = m.data.anomalies[at];
      parts.push(el("div", { class: "anomaly" }, el("b", {}, clean([a.checker, a.kind].filter(Boolean).join(": "))), el("p", {}, clean(short(a.detail, 400))), a.operations.length > 1 && el("button", { class: "small", onclick: () => showAnomaly(at) }, `Show its ${plural(a.operations.length, "operation")}`)));
    }
    if (o.command[r] >= 0) {
      const command = m.item(COMMAND, o.command[r]);
      const how = { output: "it printed this completion", fifo: "by the name of its FIFO", time: "inferred from the times: nothing else fits" }[o.how[r]];
      parts.push(el("h3", {}, "Released by the command"), el("div", { class: "links", "data-links": "command" }, goTo(command, `${titleOf(m, command)} →`), el("span", { class: "soft" }, how)));
    }
    parts.push(...quoted("Invoked with", m.texts[o.value[r]]), ...quoted("Completed with", m.texts[o.result[r]]), ...quoted("More", m.texts[o.more[r]]));
    const sum = balance(m.texts[o.result[r]]);
    if (sum !== null) pair(rows, "Sum", integer(sum));
  } else if (m.kind[item] === FAULT) {
    const target = m.faults[r].target;
    if (target === null || target === undefined) pair(rows, "Target", "the harness");
    else if (m.byId.has(target)) {
      const command = m.item(COMMAND, m.byId.get(target));
      parts.push(el("h3", {}, "Target"), el("div", { class: "links" }, goTo(command, `${titleOf(m, command)} →`)));
    }
  } else if (m.kind[item] === EVENT) parts.push(...quoted("Details", m.marks[r].details === null ? "" : JSON.stringify(m.marks[r].details, null, 2)));
  else if (m.kind[item] === PROPERTY) {
    const p = m.properties[r];
    parts.push(el("p", {}, clean(p.detail)), el("h3", {}, "Commands"), el("div", { class: "links" }, (p.commands || []).filter((id) => m.byId.has(id)).map((id) => goTo(m.item(COMMAND, m.byId.get(id)), titleOf(m, m.item(COMMAND, m.byId.get(id)))))));
  }
  box.replaceChildren(
    el("div", { class: "title" }, el("h2", {}, clean(titleOf(m, item))), el("button", { class: "small", title: "Zoom to it  f", onclick: () => zoomTo([item, ...linkedTo(item)]) }, "Zoom"), el("button", { class: "small", "aria-label": "Close", title: "Close  Esc", onclick: () => select(-1) }, "✕")),
    el("dl", {}, rows), ...parts,
  );
}
/** The sum of a map of whole numbers, such as a bank's balances. */
function balance(text) {
  const inner = /^\{([^{}[\]"]*)\}$/.exec(text.replace(/"-?\d+":/g, (key) => `${key.slice(1, -2)} `));
  if (!inner) return null;
  const numbers = inner[1].trim().split(/[\s,]+/);
  if (numbers.length < 4 || numbers.length % 2 || !numbers.every((n) => /^:?-?[\w-]+$/.test(n))) return null;
  const values = numbers.filter((_, i) => i % 2).map(Number);
  return values.every(Number.isSafeInteger) ? values.reduce((a, b) => a + b, 0) : null;
}
function showAnomaly(at) {
  const m = state.model, anomaly = m.data.anomalies[at];
  setView("timeline");
  state.cycle = anomaly;
  const items = anomaly.operations.map((r) => m.item(OPERATION, r));
  if (!items.length) return;
  if (items.some((item) => !shown(m, item))) clearFilters();
  zoomTo(items.slice(0, 200));
  select(items[0], { show: false, keepCycle: true });
  const lane = state.lanes[state.laneOf[items[0]]];
  if (lane) $("scroller").scrollTop = Math.max(0, lane.y - $("scroller").clientHeight / 3);
  redraw();
}

// Search and filters

function search(query) {
  const m = state.model;
  state.query = query;
  const wanted = query.trim().toLowerCase();
  if (!wanted) { state.found = null; state.matches = []; }
  else {
    const found = new Uint8Array(m.n), id = /^#(\d+)$/.exec(wanted);
    if (id) {
      const number = Number(id[1]);
      if (m.byId.has(number)) found[m.item(COMMAND, m.byId.get(number))] = 1;
      if (m.byIndex.has(number)) found[m.item(OPERATION, m.byIndex.get(number))] = 1;
    } else {
      const has = (text) => text.toLowerCase().includes(wanted);
      const texts = m.texts.map(has), fs = m.operations.fs.map(has);
      const { commands: c, operations: o } = m;
      for (let r = 0; r < m.sizes[COMMAND]; r++) if (texts[c.name[r]] || texts[c.stdout[r]] || texts[c.stderr[r]] || texts[c.fifos[r]]) found[m.bases[COMMAND] + r] = 1;
      for (let r = 0; r < m.sizes[OPERATION]; r++) if (fs[o.f[r]] || texts[o.value[r]] || texts[o.result[r]] || texts[o.more[r]]) found[m.bases[OPERATION] + r] = 1;
      for (const k of [FAULT, HARNESS, EVENT, PROPERTY]) for (let r = 0; r < m.sizes[k]; r++) if (has(titleOf(m, m.bases[k] + r)) || has(summaryOf(m, m.bases[k] + r))) found[m.bases[k] + r] = 1;
    }
    state.found = found;
  }
  collectMatches();
  count();
  state.page = 0;
  if (state.view === "table") renderTable();
  redraw();
}
function collectMatches() {
  const m = state.model;
  const matches = [];
  if (state.found) for (let item = 0; item < m.n; item++) if (state.found[item] && shown(m, item)) matches.push(item);
  state.matches = matches.sort((a, b) => m.start[a] - m.start[b]);
  $("matches").textContent = state.found ? (matches.length ? integer(matches.length) : "none") : "";
}
function nextMatch(direction) {
  const { matches, model: m, selected } = state;
  if (!matches.length) return;
  const at = matches.indexOf(selected);
  let next = at >= 0 ? at + direction : direction > 0 ? matches.findIndex((item) => m.start[item] >= state.t0) : matches.length - 1;
  if (next < 0) next = at < 0 ? 0 : matches.length - 1;
  select(matches[next % matches.length]);
}
function filtersChanged() {
  layOut(); collectMatches(); state.page = 0;
  for (const menu of document.querySelectorAll("details.menu")) menu.classList.toggle("active", menu.querySelector("input:not(:checked)") !== null);
  if (state.view === "table") renderTable();
  redraw();
}
function clearFilters() {
  for (const hidden of Object.values(state.hidden)) hidden.clear();
  for (const input of document.querySelectorAll("details.menu input")) input.checked = true;
  filtersChanged();
}
function buildFilters() {
  const m = state.model, box = $("filters");
  const menu = (label, set, choices) => {
    if (choices.length < 2) return null;
    const inputs = choices.map(([value, text]) => {
      const input = el("input", { type: "checkbox", checked: true, onchange: () => { if (input.checked) set.delete(value); else set.add(value); filtersChanged(); } });
      return [input, el("label", {}, input, clean(text))];
    });
    const all = (on) => { inputs.forEach(([input, _], i) => { input.checked = on; if (on) set.delete(choices[i][0]); else set.add(choices[i][0]); }); filtersChanged(); };
    return el("details", { class: "menu" }, el("summary", { class: "menu" }, label), el("fieldset", { "aria-label": label }, el("div", { class: "chips" }, el("button", { class: "small", onclick: () => all(true) }, "All"), el("button", { class: "small", onclick: () => all(false) }, "None")), inputs.map(([, row]) => row)));
  };
  const unique = (column) => [...new Set(column)];
  const kinds = [COMMAND, OPERATION, FAULT, HARNESS, EVENT].filter((k) => m.sizes[k]).map((k) => [k, ["Commands", "Operations", "Faults", "Harness", "Events"][k]]);
  const outcomes = [OK, INFO, FAIL, OPEN].map((o) => [o, m.sizes[COMMAND] ? `${OPERATION_OUTCOMES[o]}; ${COMMAND_OUTCOMES[o]}` : OPERATION_OUTCOMES[o]]);
  box.replaceChildren(...[
    menu("Show", state.hidden.kind, kinds),
    menu("Outcome", state.hidden.outcome, outcomes),
    menu("Command", state.hidden.command, unique(m.commands.name).map((name) => [name, m.texts[name]])),
    menu("f", state.hidden.f, m.operations.fs.map((f, at) => [at, f])),
    menu("Process", state.hidden.process, m.operations.processes.slice(0, 500).map((p, at) => [at, p])),
  ].filter(Boolean));
}

// Latency

const latencyParts = {};
function seriesOf(m) {
  if (state.group === "f") {
    const nemesis = m.operations.processes.map((name) => !/^-?\d+$/.test(name));
    return { k: OPERATION, names: m.operations.fs, of: (r) => (nemesis[m.operations.process[r]] ? -1 : m.operations.f[r]) };
  }
  const names = [], numbers = new Map();
  for (const name of m.commands.name) if (!numbers.has(name)) { numbers.set(name, names.length); names.push(m.texts[name]); }
  return { k: COMMAND, names, of: (r) => numbers.get(m.commands.name[r]) };
}
const seriesColour = (at) => colours[`s${at % 8}`];
function buildLatency() {
  const box = $("latency"), m = state.model;
  const both = m.sizes[COMMAND] > 0 && m.sizes[OPERATION] > 0;
  if (state.group === "f" && !m.sizes[OPERATION]) state.group = "command";
  if (state.group === "command" && !m.sizes[COMMAND]) state.group = "f";
  const groups = [["f", "Operations by f"], ["command", "Commands by name"]];
  const group = both && el("span", { class: "segmented" }, groups.map(([value, label]) => el("button", { "aria-pressed": String(state.group === value), onclick: () => { state.group = value; state.silenced.clear(); buildLatency(); redraw(); } }, label)));
  const canvas = (id, label) => el("canvas", { id, role: "img", "aria-label": label });
  const series = seriesOf(m);
  const used = new Set();
  for (let r = 0; r < m.sizes[series.k]; r++) if (series.of(r) >= 0) used.add(series.of(r));
  latencyParts.used = [...used].sort((a, b) => a - b);
  const legend = el("div", { class: "series" }, latencyParts.used.map((at) => {
    const swatch = el("i"); swatch.style.background = seriesColour(at);
    const button = el("button", { "aria-pressed": String(!state.silenced.has(at)), onclick: () => { if (state.silenced.has(at)) state.silenced.delete(at); else state.silenced.add(at); button.setAttribute("aria-pressed", String(!state.silenced.has(at))); redraw(); } }, swatch, clean(series.names[at]));
    return button;
  }));
  box.replaceChildren(
    el("div", { class: "bar" }, group, legend, el("span", { class: "buttons" }, el("button", { onclick: () => zoom(0.5), "aria-label": "Zoom in" }, "+"), el("button", { onclick: () => zoom(2), "aria-label": "Zoom out" }, "−"), el("button", { onclick: fitAll }, "Fit"))),
    el("div", { class: "sheet figure" }, el("h2", {}, "Latency over time ", el("small", {}, "● ok  ▲ info, ended from outside  ✕ fail (▪ ▮ ▬ where there are many) · lines: quantiles 0.5, 0.95, 0.99, 1 · drag: zoom to it")), canvas("scatter", "Latency over time; the table below has its quantiles")),
    el("div", { class: "sheet figure" }, el("h2", {}, "Distribution ", el("small", {}, "share of each by latency, logarithmic; marks at the median and the quantile 0.99")), canvas("distribution", "Distribution of latencies; the table below has its quantiles")),
    el("div", { class: "sheet figure" }, el("h2", {}, "Rate ", el("small", {}, "completions a second, by outcome")), canvas("rate", "Completions a second by outcome")),
    el("div", { class: "sheet wide" }, el("h2", {}, "Quantiles ", el("small", { class: "soft" }, "of the range in sight")), el("div", { id: "quantiles" })),
  );
  move($("scatter"), () => 60, () => $("scatter").clientWidth - 60, {
    hover: (x, y, event) => { const item = nearest(x, y); tooltip(item, event.clientX, event.clientY); },
    click: (x, y) => { const item = nearest(x, y); if (item >= 0) { setView("timeline"); select(item); } },
    range: true,
  });
  $("scatter").addEventListener("pointerleave", () => { $("tip").hidden = true; });
}
let points = [];
function nearest(x, y) {
  let best = -1, distance = 64;
  for (let i = 0; i < points.length; i += 3) {
    const d = (points[i] - x) ** 2 + (points[i + 1] - y) ** 2;
    if (d < distance) { distance = d; best = points[i + 2]; }
  }
  return best;
}
function latencyTick(c, ns, y, x) { c.fillStyle = colours.soft; c.textAlign = "right"; c.fillText(duration(ns).replace(/\.0+ /, " "), x, y); c.textAlign = "left"; }
/** All of a kind by their start, and the longest one's duration. */
function sorted(m, k) {
  if (!m.sorted) m.sorted = [];
  if (!m.sorted[k]) {
    const items = byStart(m, Int32Array.from({ length: m.sizes[k] }, (_, r) => m.bases[k] + r));
    const starts = Float64Array.from(items, (item) => m.start[item]);
    let longest = 0;
    for (const item of items) if (!m.open[item]) longest = Math.max(longest, m.end[item] - m.start[item]);
    m.sorted[k] = { items, starts, longest };
  }
  return m.sorted[k];
}
function drawLatency() {
  const m = state.model, scatter = $("scatter");
  if (!scatter) return;
  const series = seriesOf(m), { k } = series, LEFT = 60;
  const width = scatter.parentElement.clientWidth - 34, height = 320;
  if (width < 50) return;
  fitCanvas(scatter, width, height);
  const c = scatter.getContext("2d");
  c.clearRect(0, 0, width, height);
  const plot = width - LEFT, bottom = height - AXIS;
  const inSight = [];
  let low = Infinity, high = 1;
  const { items, starts, longest } = sorted(m, k);
  for (let i = lowerBound(starts, state.t0 - longest); i < items.length && starts[i] <= state.t1; i++) {
    const item = items[i], at = series.of(m.ref[item]);
    if (at < 0 || m.open[item] || state.silenced.has(at) || m.end[item] < state.t0) continue;
    const latency = Math.max(m.end[item] - m.start[item], 1);
    inSight.push(item);
    if (latency < low) low = latency;
    if (latency > high) high = latency;
  }
  if (!inSight.length) low = 1e6;
  low = 10 ** Math.floor(Math.log10(low)); high = 10 ** Math.ceil(Math.log10(high) + 0.02);
  if (high <= low) high = low * 10;
  const logLow = Math.log10(low), logSpan = Math.log10(high) - logLow;
  const Y = (latency) => bottom - ((Math.log10(Math.max(latency, low)) - logLow) / logSpan) * (bottom - 10);
  const X = (t) => LEFT + ((t - state.t0) / (state.t1 - state.t0)) * plot;
  c.fillStyle = colours.band;
  const bands = [...m.bands, ...m.faults.filter((f) => f.end_ns > f.start_ns).map((f) => ({ from: f.start_ns, to: f.end_ns }))];
  let shaded = LEFT;
  for (const band of bands.sort((a, b) => a.from - b.from)) {
    const from = Math.max(shaded, X(band.from)), to = Math.min(width, X(band.to));
    if (X(band.to) - X(band.from) < 3 || to <= from) continue;
    c.fillRect(from, 0, to - from, bottom);
    shaded = to;
  }
  c.save(); c.translate(0, bottom); axis(c, LEFT, plot, 0, AXIS, 5); c.restore();
  c.font = "11px " + fonts.sans; c.textBaseline = "middle";
  for (let power = low; power <= high * 1.001; power *= 10) {
    const y = Math.round(Y(power)) + 0.5;
    c.strokeStyle = colours.line; c.lineWidth = 1; c.beginPath(); c.moveTo(LEFT, y); c.lineTo(width, y); c.stroke();
    latencyTick(c, power, y, LEFT - 8);
  }
  // A point for each cell of two pixels and series, however many are in it.
  points = [];
  const columns = Math.ceil(width / 2) + 1, rows = Math.ceil(height / 2) + 1, cells = new Uint8Array(32 * rows * columns);
  c.save(); c.beginPath(); c.rect(LEFT, 0, plot, bottom); c.clip();
  const dense = inSight.length > 4000;
  let style = "";
  for (const item of inSight) {
    const at = series.of(m.ref[item]), o = m.outcome[item];
    const x = X(m.start[item]), y = Y(m.end[item] - m.start[item]);
    if (x < LEFT) continue;
    const cell = (((at % 8) * 4 + o) * rows + ((y / 2) | 0)) * columns + ((x / 2) | 0);
    if (cells[cell] && !m.marked[item]) continue;
    cells[cell] = 1;
    points.push(x, y, item);
    const colour = seriesColour(at);
    if (colour !== style) { c.fillStyle = c.strokeStyle = style = colour; }
    if (dense) { if (o === OK) c.fillRect(x - 1, y - 1, 2, 2); else if (o === FAIL) c.fillRect(x - 2.5, y - 0.75, 5, 1.5); else c.fillRect(x - 0.75, y - 3, 1.5, 6); }
    else if (o === OK) { c.beginPath(); c.arc(x, y, 2.4, 0, 7); c.fill(); }
    else if (o === FAIL) { c.lineWidth = 1.5; c.beginPath(); c.moveTo(x - 3, y - 3); c.lineTo(x + 3, y + 3); c.moveTo(x + 3, y - 3); c.lineTo(x - 3, y + 3); c.stroke(); }
    else { c.beginPath(); c.moveTo(x, y - 4); c.lineTo(x + 4, y + 3); c.lineTo(x - 4, y + 3); c.fill(); }
    if (m.marked[item]) { style = ""; c.strokeStyle = colours.bad; c.lineWidth = 2; c.beginPath(); c.arc(x, y, 7, 0, 7); c.stroke(); }
  }
  quantileLines(c, m, inSight, X, Y);
  c.restore();
  // The rest need not follow every turn of the wheel.
  clearTimeout(restTimer);
  const rest = () => {
    const groups = bySeries(m, series, inSight);
    drawDistribution(series, groups, width);
    drawRate(m, series, inSight, width);
    quantileTable(m, series, inSight, groups);
  };
  if (printing || !$("quantiles").hasChildNodes()) rest(); else restTimer = setTimeout(rest, 100);
}
let restTimer = 0;
const quantile = (sorted, q) => (sorted.length ? sorted[Math.max(0, Math.ceil(sorted.length * q) - 1)] : null);
function quantileLines(c, m, items, X, Y) {
  if (items.length < 30) return;
  const windows = Math.max(6, Math.min(80, Math.floor(items.length / 40)));
  const span = (state.t1 - state.t0) / windows, bins = Array.from({ length: windows }, () => []);
  for (const item of items) {
    const at = Math.floor((m.start[item] - state.t0) / span);
    if (at >= 0 && at < windows) bins[at].push(m.end[item] - m.start[item]);
  }
  bins.forEach((bin) => bin.sort((a, b) => a - b));
  const labelled = [];
  for (const [q, dash] of [[0.5, []], [0.95, [6, 3]], [0.99, [2, 3]], [1, [1, 5]]]) {
    for (const [colour, width] of [[colours.sheet, 4], [colours.ink, 1.4]]) {
      c.strokeStyle = colour; c.lineWidth = width; c.setLineDash(colour === colours.sheet ? [] : dash);
      c.globalAlpha = colour === colours.sheet ? 0.6 : 0.9;
      c.beginPath();
      let pen = false, last = null;
      bins.forEach((bin, i) => {
        if (!bin.length) { pen = false; return; }
        const x = X(state.t0 + (i + 0.5) * span), y = Y(quantile(bin, q));
        if (pen) c.lineTo(x, y); else c.moveTo(x, y);
        pen = true; last = [x, y];
      });
      c.stroke();
      if (last && colour === colours.ink && labelled.every((y) => Math.abs(y - last[1]) > 11)) {
        labelled.push(last[1]); c.globalAlpha = 1; c.fillStyle = colours.ink; c.textAlign = "right"; c.font = "600 11px " + fonts.sans; c.fillText(String(q), last[0] - 4, last[1] - 8); c.textAlign = "left"; }
    }
  }
  c.setLineDash([]); c.globalAlpha = 1;
}
function bySeries(m, series, items) {
  const groups = new Map();
  for (const item of items) {
    const at = series.of(m.ref[item]);
    if (!groups.has(at)) groups.set(at, []);
    groups.get(at).push(m.end[item] - m.start[item]);
  }
  return [...groups].sort((a, b) => a[0] - b[0]).map(([at, values]) => [at, Float64Array.from(values).sort()]);
}
function drawDistribution(series, groups, width) {
  const canvas = $("distribution"), ROW = 64, LEFT = 150;
  const height = Math.max(1, groups.length) * ROW + AXIS;
  fitCanvas(canvas, width, height);
  const c = canvas.getContext("2d");
  c.clearRect(0, 0, width, height);
  if (!groups.length) return;
  let low = Infinity, high = 1;
  for (const [, values] of groups) { low = Math.min(low, Math.max(1, values[0])); high = Math.max(high, values[values.length - 1]); }
  const logLow = Math.floor(Math.log10(low) * 3) / 3, logHigh = Math.max(logLow + 1 / 3, Math.ceil(Math.log10(high) * 3 + 0.01) / 3);
  const X = (latency) => LEFT + ((Math.log10(Math.max(latency, 1)) - logLow) / (logHigh - logLow)) * (width - LEFT - 30);
  c.font = "11px " + fonts.sans; c.textBaseline = "middle";
  for (let power = Math.ceil(logLow); power <= logHigh; power++) for (const f of logHigh - logLow < 2.5 ? [1, 2, 5] : [1]) {
    const x = Math.round(X(f * 10 ** power)) + 0.5;
    if (x > width - 20) continue;
    c.strokeStyle = colours.line; c.beginPath(); c.moveTo(x, 0); c.lineTo(x, height - AXIS + 4); c.stroke();
    c.fillStyle = colours.soft; c.textAlign = "center"; c.fillText(duration(f * 10 ** power).replace(/\.0+ /, " "), x, height - AXIS / 2 + 2);
  }
  c.textAlign = "left";
  groups.forEach(([at, values], row) => {
    const base = (row + 1) * ROW - 4, BIN = 4, bins = new Float64Array(Math.ceil((width - LEFT) / BIN) + 1);
    for (const value of values) bins[Math.max(0, Math.floor((X(value) - LEFT) / BIN))]++;
    const most = bins.reduce((a, b) => Math.max(a, b), 1);
    c.fillStyle = seriesColour(at);
    bins.forEach((n, i) => { if (n) { const h = Math.max(1.5, (n / most) * (ROW - 28)); c.fillRect(LEFT + i * BIN, base - h, BIN - 0.6, h); } });
    c.strokeStyle = colours.ink; c.lineWidth = 1.4;
    for (const [q, name] of [[0.5, "0.5"], [0.99, "0.99"]]) {
      const x = X(quantile(values, q));
      c.beginPath(); c.moveTo(x, base); c.lineTo(x, base - ROW + 14); c.stroke();
      c.fillStyle = colours.ink; c.font = "600 10px " + fonts.sans; c.fillText(name, x + 3, base - ROW + 18);
    }
    c.fillStyle = colours.ink; c.font = "12px " + fonts.sans;
    c.fillText(fitText(c, clean(series.names[at]), LEFT - 16), 0, base - 20);
    c.fillStyle = colours.soft; c.font = "11px " + fonts.sans;
    c.fillText(integer(values.length), 0, base - 5);
    c.strokeStyle = colours.line; c.lineWidth = 1; c.beginPath(); c.moveTo(0, base + 0.5); c.lineTo(width, base + 0.5); c.stroke();
  });
}
function drawRate(m, series, items, width) {
  const canvas = $("rate"), height = 150, LEFT = 60, BIN = 6, { k } = series;
  fitCanvas(canvas, width, height);
  const c = canvas.getContext("2d"), plot = width - LEFT, n = Math.ceil(plot / BIN), bottom = height - AXIS;
  c.clearRect(0, 0, width, height);
  const bins = [0, 1, 2].map(() => new Uint32Array(n));
  for (const item of items) {
    if (m.end[item] < state.t1) bins[m.outcome[item]][Math.floor(((m.end[item] - state.t0) / (state.t1 - state.t0)) * (n - 1e-9))]++;
  }
  let most = 1;
  for (let i = 0; i < n; i++) most = Math.max(most, bins[0][i] + bins[1][i] + bins[2][i]);
  const seconds = (state.t1 - state.t0) / n / 1e9, step = niceStep(most / seconds, 3);
  c.font = "11px " + fonts.sans; c.textBaseline = "middle";
  for (let rate = step; rate <= most / seconds; rate += step) {
    const y = Math.round(bottom - ((rate * seconds) / most) * (bottom - 8)) + 0.5;
    c.strokeStyle = colours.line; c.lineWidth = 1; c.beginPath(); c.moveTo(LEFT, y); c.lineTo(width, y); c.stroke();
    c.fillStyle = colours.soft; c.textAlign = "right"; c.fillText(rate >= 1 ? integer(Math.round(rate * 10) / 10) : rate.toPrecision(2), LEFT - 8, y); c.textAlign = "left";
  }
  for (let i = 0; i < n; i++) {
    let y = bottom;
    for (const o of [OK, INFO, FAIL]) {
      const h = (bins[o][i] / most) * (bottom - 8);
      if (!h) continue;
      c.fillStyle = colourOf(k, o); c.fillRect(LEFT + i * BIN, y - h, BIN - 1, h);
      y -= h;
    }
  }
  c.save(); c.translate(0, bottom); axis(c, LEFT, plot, 0, AXIS, 5); c.restore();
}
function quantileTable(m, series, items, groups) {
  const outcomes = new Map();
  for (const item of items) { const at = series.of(m.ref[item]); if (!outcomes.has(at)) outcomes.set(at, [0, 0, 0, 0]); outcomes.get(at)[m.outcome[item]]++; }
  const names = series.k === OPERATION ? ["ok", "info", "fail"] : ["exit 0", "ended", "failed"];
  const header = [state.group === "f" ? "f" : "Command", "Count", ...names, "Least", "0.5", "0.95", "0.99", "0.999", "Most"];
  const rows = groups.map(([at, values]) => el("tr", {}, el("td", { class: "mono" }, clean(series.names[at])), [values.length, ...outcomes.get(at).slice(0, 3)].map((n) => el("td", { class: "number" }, integer(n))), [values[0], quantile(values, 0.5), quantile(values, 0.95), quantile(values, 0.99), quantile(values, 0.999), values[values.length - 1]].map((v) => el("td", { class: "number" }, duration(v)))));
  $("quantiles").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, header.map((name, i) => el("th", { class: i ? "number" : null, scope: "col" }, name)))), el("tbody", {}, rows)));
}

// Overview

function statusCell(status) { return el("span", { class: `status ${status}` }, STATUS_WORDS[status] || status); }
function copyButton(text) {
  const button = el("button", { class: "small", title: "Copy the command line", "aria-live": "polite" }, "Copy");
  button.addEventListener("click", async () => {
    let copied = false;
    try { await navigator.clipboard.writeText(text); copied = true; } catch { // A page from a file may not have the clipboard.
      const area = el("textarea", { class: "skip" });
      area.value = text; document.body.append(area); area.select();
      try { copied = document.execCommand("copy"); } catch { copied = false; }
      area.remove();
    }
    button.textContent = copied ? "Copied" : "Select it by hand";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}
const replayLine = (line) => (line ? el("div", { class: "replay" }, el("code", {}, clean(line)), copyButton(line)) : "");
function positionOf(index) { return head.timelines.findIndex((t) => t.index === index); }
function openTimeline(index, property) {
  const position = positionOf(index);
  if (position < 0) return;
  setTimeline(position); setView("timeline");
  const m = state.model;
  const failed = (m.base.properties || []).find((p) => p.name === property && p.status === "failed");
  if (!failed) return;
  const at = m.properties.indexOf(failed);
  if (at >= 0) { select(m.item(PROPERTY, at)); zoomTo([m.item(PROPERTY, at), ...(failed.commands || []).filter((id) => m.byId.has(id)).slice(0, 20).map((id) => m.item(COMMAND, m.byId.get(id)))]); }
  else if ((failed.commands || []).some((id) => m.byId.has(id))) select(m.item(COMMAND, m.byId.get(failed.commands.find((id) => m.byId.has(id)))));
}
const sum = (list, of) => list.reduce((total, entry) => total + of(entry), 0);
function buildOverview() {
  const box = $("overview"), parts = [];
  const rank = { failed: 0, not_reached: 1, passed: 2 };
  const numbers = [
    head.kind === "rehearsal" && [head.timelines.length, "timelines"],
    head.kind === "rehearsal" && [head.timelines.filter((t) => t.failed.length).length, "of them fail"],
    head.kind === "rehearsal" && [sum(head.timelines, (t) => t.commands), "commands"],
    [sum(head.timelines, (t) => t.operations), "operations"],
    head.kind === "rehearsal" && [sum(head.timelines, (t) => t.faults), "faults"],
    [sum(head.timelines, (t) => t.anomalies), "anomalies"],
  ].filter(Boolean);
  parts.push(el("div", { class: "numbers" }, numbers.map(([n, label]) => el("div", {}, el("b", {}, integer(n)), el("span", {}, label))), el("div", {}, el("b", {}, duration(sum(head.timelines, (t) => t.duration))), el("span", {}, "played"))));
  if (head.timelines.length > 1) {
    parts.push(el("div", { class: "sheet" }, el("h2", {}, "Timelines"), el("div", { class: "strip" }, head.timelines.map((t, position) => el("button", {
      class: `cell ${t.failed.length ? "failed" : "passed"}`, title: `timeline ${t.index}, seed ${t.seed}: ${t.failed.length ? t.failed.join("; ") : "all holds"}`, onclick: () => { setTimeline(position); setView("timeline"); },
    }, `${t.failed.length ? "✗" : ""}${t.index}`)))));
  }
  if (head.properties.length) {
    const rows = [...head.properties].sort((a, b) => rank[a.status] - rank[b.status]).map((p) => el("tr", {},
      el("td", {}, statusCell(p.status)),
      el("td", { class: "text" }, el("b", {}, clean(p.name)), p.detail && el("div", { class: p.status === "passed" ? "soft" : null }, clean(p.detail)), p.status === "failed" && replayLine(p.replay)),
      el("td", {}, el("div", { class: "chips" }, p.timelines.slice(0, 12).map((t) => el("button", { class: "small", "aria-label": `Show it in timeline ${t}`, onclick: () => openTimeline(t, p.name) }, String(t))), p.timelines.length > 12 && el("span", { class: "soft" }, `and ${p.timelines.length - 12} more`))),
    ));
    parts.push(el("div", { class: "sheet wide" }, el("h2", {}, "Properties"), el("table", { id: "properties" }, el("thead", {}, el("tr", {}, ["Status", "Property, and how to play it again", "Fails in timeline"].map((t) => el("th", { scope: "col" }, t)))), el("tbody", {}, rows))));
  }
  if (head.shrunk) {
    parts.push(el("div", { class: "sheet" }, el("h2", {}, "The fewest events that still fail"),
      el("p", {}, clean(`Timeline ${head.shrunk.timeline}: ${head.shrunk.events.join(", ")}${head.shrunk.complete ? "" : " (the time for shrinking was over before all was tried)"}`)),
      el("p", { class: "soft" }, clean(head.shrunk.properties.join("; "))), replayLine(head.shrunk.replay)));
  }
  if (head.commands.length) {
    const header = ["Command", "Started", "Exit 0", "Ended from outside", "Failed", "0.5", "0.95", "0.99", "Most"];
    parts.push(el("div", { class: "sheet wide" }, el("h2", {}, "Commands, over all timelines"), el("table", {}, el("thead", {}, el("tr", {}, header.map((t, i) => el("th", { class: i ? "number" : null, scope: "col" }, t)))), el("tbody", {}, head.commands.map((c) => el("tr", {}, el("td", { class: "mono" }, clean(c.name)), [c.started, c.exit0, c.ended].map((n) => el("td", { class: "number" }, integer(n))), el("td", { class: `number${c.failed ? " failed" : ""}` }, integer(c.failed)), [c.p50, c.p95, c.p99, c.max].map((v) => el("td", { class: "number" }, duration(v)))))))));
  }
  if (head.advice.length) parts.push(el("div", { class: "sheet" }, el("h2", {}, "Worth a thought"), el("ul", { class: "plain" }, head.advice.map((text) => el("li", {}, clean(text))))));
  const about = [];
  if (head.templates.length) pair(about, "Template", clean(head.templates.join(", ")));
  if (head.harness.length) pair(about, "Harness", el("code", {}, clean(head.harness.join(" "))));
  if (head.options) pair(about, "Options", clean(Object.entries({ ...head.options, seed: head.seed }).map(([key, value]) => `${key} ${Array.isArray(value) ? value.join(",") || "none" : value}`).join(", ")));
  pair(about, "Directory", clean(head.directory)); pair(about, "Started", clean(head.started)); pair(about, "Made by", clean(head.tool));
  parts.push(el("div", { class: "sheet" }, el("h2", {}, "About"), el("dl", {}, about)));
  parts.unshift(el("div", { id: "notes" }));
  box.replaceChildren(...parts);
}
function buildNotes() {
  const notes = $("notes");
  notes.hidden = !state.model.data.notes.length;
  notes.replaceChildren(...state.model.data.notes.map((text) => el("p", { class: "note" }, clean(text))));
}

// Checker

function buildChecker() {
  const m = state.model, box = $("checker"), { anomalies, verdict } = m.data;
  const words = { true: ["passed", "✓ valid"], false: ["failed", "✗ invalid"], unknown: ["unknown", "? unknown"] }[verdict];
  $("anomaly-count").textContent = anomalies.filter((a) => !a.unknown).length || "";
  const list = anomalies.slice(0, 500).map((a, at) => el("li", { class: a.unknown ? "unknown" : null },
    el("h3", {}, clean([a.checker, a.kind].filter(Boolean).join(": "))), a.detail && el("p", {}, clean(a.detail)),
    el("div", { class: "chips" }, a.operations.slice(0, 24).flatMap((r, i) => [goTo(m.item(OPERATION, r), `${titleOf(m, m.item(OPERATION, r))} ${OPERATION_OUTCOMES[m.operations.outcome[r]]}`), a.steps[i] ? el("span", { class: "step" }, `${clean(a.steps[i])} →`) : null]), a.operations.length > 24 && el("span", { class: "soft" }, `and ${integer(a.operations.length - 24)} more`), a.operations.length > 1 && el("button", { class: "small", onclick: () => showAnomaly(at) }, "Show all")),
  ));
  const results = m.data.results;
  const nothing = results === null ? "There are no results: the harness did not get to its checker, or it is not a harness that writes results.json or results.edn." : verdict === null ? "The results have no verdict." : "The checker found no anomaly.";
  box.replaceChildren(
    el("div", { class: "sheet" }, el("h2", {}, "Verdict ", words ? el("span", { class: `pill ${words[0]}` }, words[1]) : null),
      list.length ? el("ol", { id: "anomalies" }, list) : el("p", { class: "soft" }, nothing),
      anomalies.length > 500 && el("p", { class: "soft" }, `The first 500 of ${integer(anomalies.length)}.`)),
    m.base.assertions && m.base.assertions.length ? el("div", { class: "sheet wide" }, el("h2", {}, "Assertions"), el("table", {}, el("thead", {}, el("tr", {}, ["Type", "Message", "Passes", "Fails"].map((t, i) => el("th", { scope: "col", class: i > 1 ? "number" : null }, t)))), el("tbody", {}, m.base.assertions.map((a) => el("tr", {}, el("td", {}, clean(a.type)), el("td", { class: "text" }, clean(a.message), a.first_failure && el("pre", {}, clean(short(JSON.stringify(a.first_failure, null, 2), 2000)))), el("td", { class: "number" }, integer(a.passes)), el("td", { class: `number${a.fails ? " failed" : ""}` }, integer(a.fails))))))) : "",
    results !== null ? el("details", { class: "sheet", open: results.length < 6000 }, el("summary", {}, "Results, as the checker wrote them"), el("pre", {}, clean(results))) : "",
  );
}

// Table

const PAGE = 200;
function renderTable() {
  const m = state.model, box = $("table"), items = [];
  for (let item = 0; item < m.n; item++) if (shown(m, item) && (!state.found || state.found[item])) items.push(item);
  const key = { start: (i) => m.start[i], took: (i) => m.end[i] - m.start[i] }[state.sort];
  items.sort((a, b) => (key(a) - key(b)) * (state.descending ? -1 : 1) || a - b);
  const pages = Math.max(1, Math.ceil(items.length / PAGE));
  state.page = Math.min(state.page, pages - 1);
  const sorter = (label, by) => el("th", { class: "number", scope: "col", "aria-sort": state.sort === by ? (state.descending ? "descending" : "ascending") : "none" }, el("button", { onclick: () => { state.descending = state.sort === by ? !state.descending : by === "took"; state.sort = by; renderTable(); } }, `${label}${state.sort === by ? (state.descending ? " ↓" : " ↑") : ""}`));
  const turn = (by) => { state.page += by; renderTable(); box.scrollTop = 0; };
  const rows = items.slice(state.page * PAGE, (state.page + 1) * PAGE).map((item) => el("tr", {},
    el("td", {}, KINDS[m.kind[item]]),
    el("td", {}, el("button", { class: "small", onclick: () => { setView("timeline"); select(item); } }, clean(short(titleOf(m, item), 60))), m.marked[item] ? el("span", { class: "failed" }, " ▲") : null),
    el("td", {}, m.kind[item] === OPERATION ? clean(m.operations.processes[m.operations.process[m.ref[item]]]) : ""),
    el("td", { class: "number" }, moment(m.start[item], 1e5)), el("td", { class: "number" }, m.open[item] ? "–" : duration(m.end[item] - m.start[item])),
    el("td", {}, clean(outcomeOf(m, item))), el("td", { class: "text" }, el("span", { class: "mono" }, clean(short(summaryOf(m, item), 240)))),
  ));
  box.replaceChildren(
    el("div", { class: "bar" }, el("span", {}, `${plural(items.length, "row")}${state.found || Object.values(state.hidden).some((h) => h.size) ? ", searched and filtered as in the timeline" : ""}`),
      el("span", { class: "buttons" }, el("button", { disabled: state.page === 0, onclick: () => turn(-1), "aria-label": "Previous page" }, "‹"), el("span", {}, ` ${state.page + 1} of ${integer(pages)} `), el("button", { disabled: state.page >= pages - 1, onclick: () => turn(1), "aria-label": "Next page" }, "›"))),
    el("div", { class: "sheet wide" }, el("table", {}, el("thead", {}, el("tr", {}, ["Kind", "What", "Process"].map((t) => el("th", { scope: "col" }, t)), sorter("At", "start"), sorter("Took", "took"), ["Outcome", "Value, output"].map((t) => el("th", { scope: "col" }, t)))), el("tbody", {}, rows))),
  );
}

// Legend, help

function clockNote(runs) {
  if (runs.includes(null)) return "No command tells a history's clock: its operations are placed by the harness' start, and may be off.";
  const worst = Math.max(...runs);
  return worst > 1e5 ? `The history's clock is known to ±${duration(worst)}.` : "";
}
function buildLegend() {
  const m = state.model, entries = [];
  const swatch = (draw, label) => {
    const canvas = el("canvas", { "aria-hidden": "true" });
    fitCanvas(canvas, 24, 12);
    draw(canvas.getContext("2d"));
    entries.push(el("span", {}, canvas, label));
  };
  const bar = (kind, o) => (c) => {
    const colour = colourOf(kind, o);
    if (o === FAIL && kind === OPERATION) { c.fillStyle = colour; c.fillRect(0, 5, 24, 7); }
    else if (o === OPEN) { c.strokeStyle = colour; c.lineWidth = 2; c.strokeRect(1, 1, 30, 10); }
    else { c.fillStyle = o === INFO ? hatch(c, colour) : colour; c.fillRect(0, 0, 24, 12); if (o === FAIL) { c.fillStyle = hatch(c, colours.sheet); c.fillRect(0, 8, 24, 4); } }
  };
  if (m.sizes[OPERATION]) for (const o of [OK, INFO, FAIL, OPEN]) swatch(bar(OPERATION, o), OPERATION_OUTCOMES[o]);
  if (m.sizes[COMMAND]) for (const o of [OK, INFO, FAIL]) swatch(bar(COMMAND, o), COMMAND_OUTCOMES[o]);
  if (m.sizes[FAULT]) swatch((c) => { c.fillStyle = colours.fault; c.beginPath(); c.moveTo(6, 1); c.lineTo(18, 1); c.lineTo(12, 11); c.fill(); }, "fault");
  if (m.bands.length) swatch((c) => { c.fillStyle = colours.band; c.fillRect(0, 0, 24, 12); }, "nemesis at work");
  if (m.marked.some((x) => x)) swatch((c) => { c.fillStyle = colours.bad; c.beginPath(); c.moveTo(12, 0); c.lineTo(18, 12); c.lineTo(6, 12); c.fill(); }, "anomaly");
  const clocks = m.sizes[COMMAND] && m.sizes[OPERATION] ? clockNote(m.operations.uncertainty) : "";
  $("legend").replaceChildren(...entries, clocks && el("span", {}, clocks), el("span", {}, "Wheel: zoom · Shift and wheel: move · drag: move · Shift and drag: zoom to it · ?: keys"));
}
function buildHelp() {
  const keys = [["1 … 5", "the views"], ["[  ]", "previous, next timeline"], ["← →", "move in time"], ["↑ ↓", "move between lanes"], ["+ −", "zoom"], ["0", "show everything"], ["f", "zoom to what is selected"], [", .", "previous, next in its lane"], ["l", "from an operation to its command, and back"], ["a A", "next, previous anomaly"], ["/", "search"], ["n N", "next, previous match"], ["t", "dark or light"], ["Esc", "close, deselect"]];
  $("help").replaceChildren(el("h2", { id: "help-title" }, "Keys"), el("div", { class: "keys" }, keys.flatMap(([key, what]) => [el("span", {}, key.split(/ +/).map((k) => (k === "…" ? " … " : [el("kbd", {}, k), " "]))), el("span", {}, what)])),
    el("p", { class: "soft" }, "Over the chart the wheel zooms, with Shift it moves in time, over the names it moves between lanes. Drag to move, drag with Shift to zoom to a range. The view Table has everything that the charts show as text."), el("p", {}, el("br"), el("button", { onclick: () => $("help").close() }, "Close")));
}

// Pointers

/** Wheel and drag on a canvas with a time axis from `left()` that is `width()` wide. */
function move(canvas, left, width, { hover, click, scroll, range }) {
  const timeAt = (x) => state.t0 + ((x - left()) / width()) * (state.t1 - state.t0);
  canvas.addEventListener("wheel", (event) => {
    const x = event.offsetX;
    if (range && !event.ctrlKey && !event.shiftKey) return; // A page that scrolls keeps its wheel.
    if (x < left() && scroll && !event.ctrlKey) return;
    event.preventDefault();
    const line = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    const across = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
    if (Math.abs(across) > Math.abs(event.shiftKey ? 0 : event.deltaY)) { pan((across * line) / width()); return; }
    zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY * line)) * (event.ctrlKey ? 0.008 : 0.0022)), timeAt(Math.max(x, left())));
  }, { passive: false });
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drag = { x: event.offsetX, y: event.offsetY, t0: state.t0, t1: state.t1, top: $("scroller").scrollTop, moved: false, zooming: event.shiftKey || range };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const x = event.offsetX, y = event.offsetY;
    if (!drag) { hover(x, y, event); return; }
    if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < 4) return;
    drag.moved = true; drag.toX = x;
    $("tip").hidden = true;
    if (drag.zooming) { redraw(); requestAnimationFrame(() => drag && rubber(canvas, drag.x, x)); return; }
    canvas.classList.add("dragging");
    const by = ((drag.x - x) / width()) * (drag.t1 - drag.t0);
    setRange(drag.t0 + by, drag.t1 + by);
    if (scroll) $("scroller").scrollTop = drag.top + drag.y - y;
  });
  const done = (event) => {
    if (!drag) return;
    const { moved, zooming, x, toX: to } = drag;
    drag = null;
    canvas.classList.remove("dragging");
    if (!moved) { if (event.type === "pointerup") click(event.offsetX, event.offsetY); }
    else if (zooming && Math.abs(to - x) > 4) setRange(timeAt(Math.min(x, to)), timeAt(Math.max(x, to)));
    redraw();
  };
  canvas.addEventListener("pointerup", done);
  canvas.addEventListener("pointercancel", done);
}
function rubber(canvas, a, b) {
  const c = canvas.getContext("2d");
  c.fillStyle = colours.accent; c.globalAlpha = 0.18; c.fillRect(Math.min(a, b), 0, Math.abs(b - a), canvas.clientHeight); c.globalAlpha = 1;
}
function listen() {
  let waiting = null;
  move(chart, () => GUTTER, plotWidth, {
    scroll: true,
    hover: (x, y, event) => {
      waiting = [x, y, event.clientX, event.clientY];
      requestAnimationFrame(() => {
        if (!waiting) return;
        const [px, py, cx, cy] = waiting;
        waiting = null;
        const item = pick(px, py);
        chart.classList.toggle("over", item >= 0);
        tooltip(item, cx, cy);
        if (item !== state.hover) { state.hover = item; redraw(); }
      });
    },
    click: (x, y) => { chart.focus({ preventScroll: true }); select(pick(x, y), { show: false }); },
  });
  chart.addEventListener("pointerleave", () => { waiting = null; $("tip").hidden = true; if (state.hover >= 0) { state.hover = -1; redraw(); } });
  chart.addEventListener("dblclick", (event) => { const item = pick(event.offsetX, event.offsetY); if (item >= 0) zoomTo([item]); else zoom(0.4, toTime(event.offsetX)); });
  $("scroller").addEventListener("scroll", redraw);
  const jump = (event) => {
    const m = state.model, t = m.t0 + (event.offsetX / map.clientWidth) * (m.t1 - m.t0), half = (state.t1 - state.t0) / 2;
    setRange(t - half, t + half);
  };
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); jump(event); });
  map.addEventListener("pointermove", (event) => { if (event.buttons & 1) jump(event); });
  map.addEventListener("wheel", (event) => { event.preventDefault(); const m = state.model; zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY)) * 0.0022), m.t0 + (event.offsetX / map.clientWidth) * (m.t1 - m.t0)); }, { passive: false });

  $("zoom-in").onclick = () => zoom(0.5);
  $("zoom-out").onclick = () => zoom(2);
  $("zoom-fit").onclick = fitAll;
  let typing = 0;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => search($("search").value), 120); });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") { clearTimeout(typing); if ($("search").value !== state.query) search($("search").value); nextMatch(event.shiftKey ? -1 : 1); }
    if (event.key === "Escape") { $("search").value = ""; search(""); chart.focus({ preventScroll: true }); event.stopPropagation(); }
  });
  $("match-next").onclick = () => nextMatch(1);
  $("match-previous").onclick = () => nextMatch(-1);
  $("previous").onclick = () => setTimeline(Math.max(0, state.model.position - 1));
  $("next").onclick = () => setTimeline(Math.min(head.timelines.length - 1, state.model.position + 1));
  $("choose").onchange = () => setTimeline(Number($("choose").value));
  $("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  $("help-button").onclick = () => $("help").showModal();
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, at) => {
    tab.onclick = () => setView(tab.getAttribute("aria-controls"));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault(); event.stopPropagation();
      const next = tabs[(at + by + tabs.length) % tabs.length];
      setView(next.getAttribute("aria-controls")); next.focus();
    });
  });
  document.addEventListener("click", (event) => { for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false; });
  document.addEventListener("keydown", key);
  addEventListener("resize", redraw);
  new ResizeObserver(redraw).observe($("scroller"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => { if (!chosenTheme) setTheme(event.matches ? "dark" : "light", false); });
  addEventListener("hashchange", recall);
  addEventListener("beforeprint", () => { printing = true; themeBefore = document.documentElement.dataset.theme; setTheme("light", false); drawNow(); });
  addEventListener("afterprint", () => { printing = false; setTheme(themeBefore, false); redraw(); });
}
let printing = false, themeBefore = "light", chosenTheme = false;
function key(event) {
  const m = state.model;
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.target.matches("input[type=search], select, textarea")) return;
  const lanes = state.view === "timeline", views = ["overview", "timeline", "latency", "checker", "table"];
  const inChart = lanes && !event.target.closest("aside, details.menu, #filter-bar button, [role=tab]");
  const scroller = $("scroller");
  const step = (by) => {
    const lane = state.lanes[state.selected >= 0 ? state.laneOf[state.selected] : state.lanes.findIndex((l) => l.items.length)];
    if (!lane) return;
    const at = state.selected >= 0 ? lane.items.indexOf(state.selected) + by : Math.min(lowerBound(lane.ends, state.t0), lane.items.length - 1);
    if (at >= 0 && at < lane.items.length) select(lane.items[at]);
  };
  const anomaly = (by) => {
    const marked = [];
    for (let item = 0; item < m.n; item++) if (m.marked[item]) marked.push(item);
    if (!marked.length) return;
    marked.sort((a, b) => m.start[a] - m.start[b]);
    const at = marked.indexOf(state.selected);
    setView("timeline");
    select(marked[(at + by + (at < 0 && by < 0 ? 1 : 0) + marked.length) % marked.length]);
  };
  const actions = {
    "?": () => $("help").showModal(), "/": () => { setView(state.view === "table" ? "table" : "timeline"); $("search").focus(); $("search").select(); },
    t: () => $("theme").click(), "[": () => $("previous").click(), "]": () => $("next").click(),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: fitAll,
    n: () => nextMatch(1), N: () => nextMatch(-1), a: () => anomaly(1), A: () => anomaly(-1),
    f: () => { if (state.cycle) zoomTo(state.cycle.operations.slice(0, 200).map((r) => m.item(OPERATION, r))); else if (state.selected >= 0) zoomTo([state.selected, ...linkedTo(state.selected)]); },
    l: () => { const [other] = state.selected >= 0 ? linkedTo(state.selected) : []; if (other !== undefined) select(other); },
    ".": () => step(1), ",": () => step(-1),
    Escape: () => { const menu = document.querySelector("details.menu[open]"); if (menu) menu.open = false; else if (state.selected >= 0 || state.cycle) select(-1); },
  };
  views.forEach((view, at) => { actions[at + 1] = () => setView(view); });
  if (inChart) Object.assign(actions, {
    ArrowLeft: () => pan(-0.15), ArrowRight: () => pan(0.15), ArrowUp: () => { scroller.scrollTop -= 36; }, ArrowDown: () => { scroller.scrollTop += 36; },
    PageUp: () => { scroller.scrollTop -= scroller.clientHeight * 0.9; }, PageDown: () => { scroller.scrollTop += scroller.clientHeight * 0.9; }, Home: () => setRange(m.t0, m.t0 + state.t1 - state.t0), End: () => setRange(m.t1 - state.t1 + state.t0, m.t1),
  });
  const action = actions[event.key];
  if (action) { event.preventDefault(); action(); }
}

// Views, timelines, theme, and the address that brings one back

function setView(view) {
  state.view = view;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const on = tab.getAttribute("aria-controls") === view;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !on;
  }
  $("tip").hidden = true;
  if (view === "table") renderTable();
  remember();
  redraw();
}
function setTimeline(position) {
  if (state.model && state.model.position === position) return;
  state.model = load(position);
  for (const hidden of Object.values(state.hidden)) hidden.clear();
  Object.assign(state, { selected: -1, hover: -1, cycle: null, found: null, matches: [], query: "", page: 0 });
  $("search").value = ""; $("matches").textContent = "";
  density = null;
  $("scroller").scrollTop = 0;
  buildFilters(); layOut(); fitAll(); buildLatency(); buildChecker(); buildLegend(); buildNotes(); details();
  $("choose").value = String(position);
  $("previous").disabled = position === 0; $("next").disabled = position === head.timelines.length - 1;
  document.querySelectorAll(".cell").forEach((cell, at) => { if (at === position) cell.setAttribute("aria-current", "true"); else cell.removeAttribute("aria-current"); });
  if (state.view === "table") renderTable();
  remember();
}
function setTheme(theme, chosen = true) {
  chosenTheme = chosenTheme || chosen;
  document.documentElement.dataset.theme = theme;
  readColours();
  if (state.model) { buildLegend(); buildLatencyColours(); }
  redraw();
}
function buildLatencyColours() {
  document.querySelectorAll(".series i").forEach((swatch, i) => { swatch.style.background = seriesColour(latencyParts.used[i]); });
}
let recalling = false;
function remember() {
  if (recalling || !state.model) return;
  const m = state.model, parts = [`view=${state.view}`];
  if (head.timelines.length > 1) parts.push(`timeline=${head.timelines[m.position].index}`);
  if (state.selected >= 0 && m.kind[state.selected] <= FAULT) parts.push(`${KINDS[m.kind[state.selected]]}=${m.kind[state.selected] === COMMAND ? m.commands.id[m.ref[state.selected]] : m.kind[state.selected] === OPERATION ? m.operations.index[m.ref[state.selected]] : m.ref[state.selected]}`);
  try { history.replaceState(null, "", `#${parts.join("&")}`); } catch { /* Some browsers refuse it for files; the page works without. */ }
}
function recall() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  recalling = true;
  const position = wanted.has("timeline") ? positionOf(Number(wanted.get("timeline"))) : -1;
  const worst = head.timelines.findIndex((t) => t.failed.length || t.anomalies);
  setTimeline(position >= 0 ? position : state.model ? state.model.position : Math.max(0, worst));
  const view = wanted.get("view");
  setView($(`tab-${view}`) ? view : state.model && location.hash ? state.view : head.kind === "store" ? "timeline" : "overview");
  const m = state.model;
  for (const [k, find] of [[COMMAND, (n) => m.byId.get(n)], [OPERATION, (n) => m.byIndex.get(n)], [FAULT, (n) => (n < m.sizes[FAULT] ? n : undefined)]]) {
    if (!wanted.has(KINDS[k])) continue;
    const r = find(Number(wanted.get(KINDS[k])));
    if (r !== undefined) select(m.item(k, r));
  }
  recalling = false;
  remember();
}

function begin() {
  const style = getComputedStyle(document.documentElement);
  fonts.sans = style.getPropertyValue("--sans").trim(); fonts.mono = style.getPropertyValue("--mono").trim();
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light", false);
  document.title = `${clean(head.title)} – ${head.kind === "store" ? "test" : "rehearsal"}`;
  $("title").textContent = clean(head.title);
  $("subtitle").textContent = clean([head.kind === "store" ? "a test" : `${plural(head.timelines.length, "timeline")}, seed ${head.seed}`, head.started, head.tool].filter(Boolean).join(" · "));
  $("choose").replaceChildren(...head.timelines.map((t, at) => el("option", { value: at }, `${t.failed.length ? "✗" : "✓"} timeline ${t.index}${t.anomalies ? `, ${plural(t.anomalies, "anomaly").replace("anomalys", "anomalies")}` : ""}`)));
  $("chooser").hidden = head.timelines.length < 2;
  buildOverview(); buildHelp();
  if (!head.timelines.length) {
    for (const id of ["timeline", "latency", "checker", "table"]) $(`tab-${id}`).disabled = true;
    $("overview").hidden = false; $("tab-overview").setAttribute("aria-selected", "true"); $("notes").hidden = true;
    verdict(null);
    return;
  }
  listen();
  recall();
  verdict(state.model.data.verdict);
  drawNow();
  window.report.openedMs = performance.now();
}
function verdict(ofStore) {
  const failed = head.properties.filter((p) => p.status === "failed").length;
  const [status, text] = head.kind === "rehearsal"
    ? failed ? ["failed", `✗ ${failed} of ${head.properties.length} properties fail`] : ["passed", "✓ all holds"]
    : { true: ["passed", "✓ valid"], false: ["failed", "✗ invalid"] }[ofStore] || ["unknown", "? no verdict"];
  $("verdict").className = `pill ${status}`;
  $("verdict").textContent = text;
}

/** For scripts: what is drawn, and where. */
window.report = {
  head, state, frames, openedMs: null, startedMs: opened,
  locate(kind, number) {
    const m = state.model, k = KINDS.indexOf(kind);
    const r = k === COMMAND ? m.byId.get(number) : k === OPERATION ? m.byIndex.get(number) : number;
    const at = place(m.item(k, r), AXIS - state.scroll), box = chart.getBoundingClientRect();
    return at && { x: box.x + at.middle, y: box.y + at.y + at.h / 2 };
  },
  selection() { const m = state.model; return state.selected < 0 ? null : { kind: KINDS[m.kind[state.selected]], title: titleOf(m, state.selected) }; },
  range: () => [state.t0, state.t1],
  zoom, pan, fitAll, redraw: drawNow,
};
begin();
})();
