// The page's life: language and colours, the stream and its losses, and who draws what.

import { Alarms } from "./alarms.js";
import { languageAndColours } from "./choices.js";
import { className, h, text } from "./dom.js";
import { Plcs } from "./plcs.js";
import * as sections from "./sections.js";
import * as w from "./words.js";

const by = (id) => document.getElementById(id);
// The status comes every second: this long without one, and the line is down.
const SILENCE_MS = 5000;
const RETRY_MS = 3000;
const HIDDEN_MS = 60000;

let status = null;
let skewMs = 0; // the box's clock less ours
let heardAt = 0;
let source = null;
let retry = 0;
const now = () => Date.now() + skewMs;
const events = new sections.Events();
const plcs = new Plcs(connect, now);
const alarms = new Alarms(now);

// -- words and colours --------------------------------------------------------------------

function spoken() {
  by("jump").setAttribute("aria-label", w.t("nav"));
  by("jump").replaceChildren(...["alarms", "plcs", "outputs", "mirrors", "processes", "events"].map((id) => {
    const link = document.createElement("a");
    link.href = `#${id}`;
    link.textContent = w.t(id);
    return link;
  }), h("a", { href: "oee", hidden: true }, w.t("o_title")));
  redraw();
}

function redraw() {
  sections.rebuild();
  const had = plcs.openGroups.size;
  plcs.rebuild();
  alarms.rebuild();
  events.show();
  draw();
  if (had) connect();
}

// -- the stream ---------------------------------------------------------------------------

function connect() {
  clearTimeout(retry);
  source?.close();
  const query = new URLSearchParams({ panel: "1" });
  for (const plc of plcs.subscription.plcs) query.append("plc", plc);
  for (const group of plcs.subscription.groups) query.append("group", group);
  source = new EventSource(`api/stream?${query}`);
  const mine = source;
  const on = (name, take) => mine.addEventListener(name, (e) => { if (mine === source) take(JSON.parse(e.data)); });
  on("hello", (data) => { plcs.hello(data); events.set(data.events); });
  on("status", take);
  on("groups", (data) => plcs.setGroups(data.plc, data.groups));
  on("event", (data) => events.add(data));
  on("message", (data) => plcs.message(data));
  mine.onerror = () => {
    // The browser tries again by itself, except after an answer that is no stream.
    if (mine === source && mine.readyState === EventSource.CLOSED) retry = setTimeout(connect, RETRY_MS);
  };
}

function take(data) {
  status = data;
  heardAt = Date.now();
  skewMs = data.ts - heardAt;
  for (const plc of data.plcs) {
    plc.problem = data.problems.find((p) => p.subject === plc.id && (p.code.startsWith("plc_") || p.code === "fields_bad"));
  }
  draw();
}

function draw() {
  if (showContact() || !status) return;
  text(by("site"), status.site);
  document.title = `${status.problems.length ? `(${status.problems.length}) ` : ""}${status.site} · plc-edge`;
  sections.health(status, now());
  plcs.history = status.processes.some((p) => p.name === "historian");
  plcs.status(status.plcs);
  sections.outputs(status);
  sections.mirrors(status);
  sections.processes(status);
  alarms.status(status.processes);
  for (const link of by("jump").children) link.hidden = link.hash ? by(link.hash.slice(1)).hidden : !plcs.history;
  text(by("updated"), w.t("updated", { time: w.time(status.ts) }));
}

function showContact() {
  const silent = heardAt ? Date.now() - heardAt : 0;
  const lost = heardAt && silent > SILENCE_MS;
  className(by("contact"), `contact ${lost ? "off" : heardAt ? "on" : ""}`);
  text(by("contact"), w.t(lost ? "lost" : heardAt ? "live" : "connecting"));
  by("lost").hidden = !lost;
  if (lost) text(by("lost"), w.t("lost_long", { age: w.span(Math.floor(silent / 5000) * 5) }));
  document.documentElement.classList.toggle("gone", Boolean(lost));
  // Whatever was said last may not be true any more.
  if (lost) {
    className(by("verdict"), "verdict");
    text(by("overall"), w.t("overall_lost"));
    text(by("summary"), w.t("sum_lost"));
  }
  return lost;
}

setInterval(() => {
  // A connection may look open for minutes after the box has gone.
  if (showContact() && source?.readyState === EventSource.OPEN) connect();
  plcs.everySecond();
}, 1000);
setInterval(() => plcs.tick(), 5000);

// A tab that nobody sees costs nothing.
let hiddenSince = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenSince);
  if (document.hidden) hiddenSince = setTimeout(() => { source?.close(); source = null; }, HIDDEN_MS);
  else if (!source) connect();
});

languageAndColours(spoken, redraw);
connect();
