// Shifts and OEE: one shift, all machines. What it shows stands in its address; printed, it is the
// shift's report.

import { languageAndColours } from "./choices.js";
import { h, text } from "./dom.js";
import * as w from "./words.js";

const by = (id) => document.getElementById(id);
const PARTS = ["running", "stopped_unplanned", "stopped_planned", "unknown", "breaks", "outside"];
const INDICES = ["oee", "availability", "performance", "quality"];
const FOLLOW_MS = 30000; // a shift that is worked now is asked again
const DAY_MS = 86400e3;

const view = { shift: "", machine: "" };
let shifts = [], zone = "UTC", data = null, due = 0, asked = 0;

function read() {
  const q = new URLSearchParams(location.search);
  view.shift = q.get("shift") ?? "";
  view.machine = q.get("machine") ?? "";
}

function write() {
  history.pushState(null, "", `?${new URLSearchParams(Object.entries(view).filter(([, v]) => v))}`);
}

async function ask(path, query) {
  const answer = await fetch(`api/${path}?${new URLSearchParams(query)}`, { cache: "no-store" });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error === "away" ? w.t("o_away") : w.refusal(said) ?? `${answer.status}`);
  return said;
}

// -- asking -----------------------------------------------------------------------------------

// Four weeks back from the shift that is shown, and two ahead.
async function list() {
  const around = Date.parse(view.shift.split("/")[0]) || Date.now();
  const said = await ask("shifts", { from: Math.round(around - 28 * DAY_MS), to: Math.round(Math.min(Date.now() + 1, around + 14 * DAY_MS)) });
  zone = said.timezone;
  shifts = said.shifts.filter((s) => s.state !== "future").reverse();
  if (!view.shift) view.shift = shifts[0]?.id ?? "";
}

async function load() {
  clearTimeout(due);
  const mine = ++asked;
  try {
    await list();
    choices();
    if (!view.shift) return void fault(w.t("o_no_shift"));
    const said = await ask("oee", { shift: view.shift });
    if (mine !== asked) return;
    data = said;
    if (data.until_ms < data.end_ms) due = setTimeout(() => !document.hidden && load(), FOLLOW_MS);
    fault("");
    show();
  } catch (e) {
    if (mine === asked) fault(e instanceof TypeError ? w.t("lost") : w.t("o_failed", { text: e.message }));
  }
}

function fault(words) {
  by("fault").hidden = !words;
  text(by("fault"), words);
  by("report").hidden = Boolean(words);
}

// -- showing ----------------------------------------------------------------------------------

const locale = () => (w.language === "pt" ? "pt-BR" : "en-GB");
const at = (ms, style) => new Date(ms).toLocaleString(locale(), { timeZone: zone, ...style });
const day = (ms) => at(ms, { dateStyle: "short", timeStyle: "short" });
const clock = (ms) => at(ms, at(ms, { dateStyle: "short" }) === at(data.begin_ms, { dateStyle: "short" }) ? { timeStyle: "medium" } : { dateStyle: "short", timeStyle: "medium" });
const percent = (ratio) => (ratio == null ? "–" : `${w.fixed(100 * ratio, 1)} %`);
const pieces = (n) => (n == null ? "–" : w.whole(n));

function lasted(ms) {
  const s = Math.round(ms / 1000), minutes = Math.round(s / 60);
  if (s < 120) return `${s} s`;
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

function choices() {
  const one = shifts.some((s) => s.id === view.shift) || !view.shift ? shifts : [{ id: view.shift, name: view.shift, begin_ms: 0 }, ...shifts];
  by("shift").replaceChildren(...one.map((s) => h("option", { value: s.id, selected: s.id === view.shift }, s.begin_ms ? `${at(s.begin_ms, { dateStyle: "short" })} ${s.name}${s.state === "now" ? ` (${w.t("o_now")})` : ""}` : s.name)));
  const i = one.findIndex((s) => s.id === view.shift);
  by("later").disabled = i <= 0;
  by("earlier").disabled = i < 0 || i + 1 >= one.length;
}

function show() {
  const names = data.machines.map((m) => m.name);
  if (!names.includes(view.machine)) view.machine = "";
  by("machine").replaceChildren(h("option", { value: "" }, w.t("o_all")), ...names.map((n) => h("option", { value: n, selected: n === view.machine }, n)));
  const machines = data.machines.filter((m) => !view.machine || m.name === view.machine);
  const ends = w.t("o_period", { begin: day(data.begin_ms), end: day(data.end_ms), zone });
  const id = data.shifts[0].name;
  text(by("period"), `${id}: ${ends}${data.until_ms < data.end_ms ? `, ${w.t("o_so_far", { until: clock(data.until_ms) })}` : ""}`);
  document.title = `${w.t("o_title")} ${data.shifts[0].id} · plc-edge`;
  const rows = machines.map((m) => [m.name, m, ""]);
  if (rows.length > 1) rows.push([w.t("o_all"), data.total, "all"]);
  by("indices").replaceChildren(...rows.map(([name, m, kind]) => h("tr", { class: kind || null },
    h("th", { scope: "row" }, name), ...INDICES.map((k) => h("td", { class: "n" }, percent(m[k]))), h("td", { class: "n" }, pieces(m.pieces.good)), h("td", { class: "n" }, pieces(m.pieces.bad)))));
  by("machines").replaceChildren(...machines.map(machine));
  text(by("updated"), w.t("updated", { time: w.time(data.now_ms) }));
}

function machine(m) {
  const whole = Object.values(m.parts_ms).reduce((a, b) => a + b, 0) || 1;
  const here = PARTS.filter((p) => m.parts_ms[p]);
  const split = h("div", { class: "split", "aria-hidden": "true" }, ...here.map((p) => {
    const part = h("i", { class: p });
    part.style.flexGrow = String(m.parts_ms[p] / whole);
    return part;
  }));
  const said = [];
  if (m.short_stops.count) said.push(w.t("o_short", { n: m.short_stops.count, time: lasted(m.short_stops.ms) }));
  for (const k of ["unseen", "at_rest"]) if (m[`pieces_${k}`].total) said.push(w.t(`o_${k}`, { n: pieces(m[`pieces_${k}`].total) }));
  if (!m.stops.length) said.push(w.t("o_none"));
  return h("section", { class: "machine", "aria-label": m.name },
    h("h2", {}, m.name), split,
    h("ul", { class: "parts" }, ...here.map((p) => h("li", { class: p }, `${w.t(`o_${p}`)} ${lasted(m.parts_ms[p])} (${percent(m.parts_ms[p] / whole)})`))),
    ...said.map((s) => h("p", { class: "none" }, s)),
    m.stops.length ? h("div", { class: "tables" }, reasons(m), stops(m)) : null);
}

function reason(m, code) {
  const words = code ? m.words[code] ?? code : w.t("o_no_reason");
  return m.planned.includes(code) ? `${words} (${w.t("o_planned")})` : words;
}

function table(label, heads, rows) {
  return h("div", {}, h("h3", {}, label), h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, h("table", { class: "plain" },
    h("thead", {}, h("tr", {}, ...heads.map(([words, kind]) => h("th", { scope: "col", class: kind }, words)))), h("tbody", {}, ...rows))));
}

function reasons(m) {
  const rows = Object.entries(m.reasons_ms).sort((a, b) => b[1] - a[1]);
  return table(w.t("o_reasons"), [[w.t("o_reason")], [w.t("o_stopped"), "n"]], rows.map(([code, ms]) => h("tr", {}, h("th", { scope: "row" }, reason(m, code)), h("td", { class: "n" }, lasted(ms)))));
}

function stops(m) {
  const edge = (kind) => ({ before: ` (${w.t("o_before")})`, after: ` (${w.t("o_after")})`, unknown: ` (${w.t("o_lost")})` })[kind] ?? "";
  return table(w.t("o_stops"), [[w.t("o_from")], [w.t("o_to")], [w.t("o_stopped"), "n"], [w.t("o_reason")]], m.stops.map((s) => h("tr", {},
    h("td", {}, clock(s.begin_ms) + edge(s.began)), h("td", {}, clock(s.end_ms) + edge(s.ended)), h("td", { class: "n" }, lasted(s.stopped_ms)),
    h("td", { class: "why" }, [...new Set(s.reasons.map((r) => reason(m, r.code)))].join(", ")))));
}

// -- choosing, and the page's life ------------------------------------------------------------

function choose(shift) {
  view.shift = shift;
  write();
  load();
}

const step = (n) => () => {
  const options = [...by("shift").options].map((o) => o.value);
  const next = options[options.indexOf(view.shift) + n];
  if (next) choose(next);
};
by("earlier").addEventListener("click", step(1));
by("later").addEventListener("click", step(-1));
by("shift").addEventListener("change", (e) => choose(e.target.value));
by("machine").addEventListener("change", (e) => { view.machine = e.target.value; write(); if (data) show(); });
by("print").addEventListener("click", () => print());

function spoken() {
  document.title = `${w.t("o_title")} · plc-edge`;
  load();
}

addEventListener("popstate", () => { read(); load(); });
document.addEventListener("visibilitychange", () => !document.hidden && data && data.until_ms < data.end_ms && load());

read();
languageAndColours(spoken);
