// The history page: which values, which time, and who draws them. What it shows stands in its
// address, so a link, the back button and a reload show the same.

import { languageAndColours } from "./choices.js";
import { h, list, text } from "./dom.js";
import { before, HistoryChart, MAX_SERIES } from "./history-chart.js";
import { curve, csv } from "./history-data.js";
import { colour } from "./history-lanes.js";
import * as hw from "./history-words.js";
import * as w from "./words.js";

const by = (id) => document.getElementById(id);
const SPANS_S = [3600, 8 * 3600, 86400, 7 * 86400, 30 * 86400];
const SETTLE_MS = 150; // after the last move of the axis, before the server is asked
const FOLLOW_MS = 30000; // a range that ends now is asked again
const MAX_FOUND = 60;
const MAX_LISTED = 100;

const view = { keys: [], span: 86400e3, begin: 0, end: 0 }; // span: of a range that ends now; else 0
let chart = null;
let data = null;
let due = 0;
let asked = 0; // number of the newest question: an older one's answer is not shown

// -- the address ----------------------------------------------------------------------------

function read() {
  const q = new URLSearchParams(location.search);
  view.keys = [...new Set(q.getAll("s"))].slice(0, MAX_SERIES);
  const [from, to] = [Number(q.get("from")), Number(q.get("to"))];
  view.span = from > 0 && to > from ? 0 : 1000 * (Number(q.get("last")) || 86400);
  [view.begin, view.end] = view.span ? [Date.now() - view.span, Date.now()] : [from, to];
}

function write(replace) {
  const q = new URLSearchParams(view.keys.map((key) => ["s", key]));
  if (view.span) q.set("last", view.span / 1000);
  else q.set("from", Math.round(view.begin)), q.set("to", Math.round(view.end));
  history[replace ? "replaceState" : "pushState"](null, "", `?${q}`);
}

// -- asking -----------------------------------------------------------------------------------

async function ask(path, query) {
  const answer = await fetch(`api/history${path}?${query}`, { cache: "no-store" });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error === "away" ? w.t("h_away") : w.refusal(said) ?? `${answer.status}`);
  return said;
}

async function load() {
  clearTimeout(due);
  const mine = ++asked, began = performance.now();
  chosen();
  if (view.span) [view.begin, view.end] = [Date.now() - view.span, Date.now()];
  fill();
  if (!view.keys.length) by("view").hidden = by("beside").hidden = true;
  pick(!view.keys.length);
  if (!view.keys.length) return;
  if (view.span) due = setTimeout(() => !document.hidden && load(), FOLLOW_MS);
  const [from, to] = [Math.floor(view.begin), Math.ceil(view.end)];
  const room = chart?.room ?? Math.min(2000, by("main").clientWidth);
  const range = [["from", from], ["to", to]];
  const plcs = [...new Set(view.keys.map((key) => key.split("/")[0]))];
  try {
    const [values, beside] = await Promise.all([
      ask("", new URLSearchParams([...view.keys.map((s) => ["series", s]), ...range, ["points", room]])),
      ask("/events", new URLSearchParams([...plcs.map((p) => ["plc", p]), ...range])),
    ]);
    if (mine !== asked) return;
    const now = values.now;
    const series = values.series.map((s) => curve(s, values, view.keys.indexOf(s.key)));
    data = { begin: from, end: to, now, step_ms: values.step_ms, series, alarms: beside.alarms, events: beside.events, complete: beside.complete };
    fault("");
    show();
    requestAnimationFrame(() => { by("plot").dataset.drawnMs = Math.round(performance.now() - began); });
  } catch (e) {
    if (mine === asked) fault(e instanceof TypeError ? w.t("lost") : w.t("h_failed", { text: e.message }));
  }
}

function fault(words) {
  by("fault").hidden = !words;
  text(by("fault"), words);
}

// -- showing ----------------------------------------------------------------------------------

function show() {
  by("view").hidden = by("beside").hidden = false;
  chart ??= new HistoryChart(by("plot"), document.documentElement.lang, ranged, pointed);
  chart.show(data);
  text(by("h-view"), hw.title(data));
  by("plot").setAttribute("aria-label", hw.title(data));
  by("legend").replaceChildren(...hw.legend(data).map(([tone, words]) => h("li", { class: tone }, words)));
  list(by("values"), data.series, (s) => `${s.key}|${s.i}`, (s) => {
    const row = { value: h("td", { class: "n" }), range: h("td", { class: "n range" }), quality: h("td"), mark: h("i", { class: "dot" }) };
    row.mark.style.background = colour(s.i);
    row.node = h("tr", {}, h("th", { scope: "row" }, row.mark, s.name), row.value, row.range, row.quality);
    return row;
  }, () => {});
  const ranges = data.series.some((s) => s.lo || s.more);
  for (const cell of document.querySelectorAll("#view .range")) cell.hidden = !ranges;
  pointed(chart.cursor);
  happened();
  text(by("updated"), w.t("updated", { time: w.time(data.now) }));
}

// The values under the cursor; without one the last in the range.
function pointed(at) {
  const t = at ?? Math.min(data.end, data.now);
  text(by("moment"), at == null ? w.t("h_last") : hw.moment(at, data));
  const said = [];
  for (const s of data.series) {
    const row = by("values").keyed?.get(`${s.key}|${s.i}`);
    if (!row) continue;
    const is = hw.reading(s, before(s.ts, t), t, data);
    text(row.value, is.value);
    text(row.range, is.range);
    text(row.quality, is.quality);
    row.quality.className = is.tone;
    said.push(`${s.name}: ${is.value} ${is.quality}`);
  }
  if (document.activeElement === by("plot")) text(by("at"), `${by("moment").textContent}: ${said.join("; ")}`);
}

function happened() {
  const rows = [
    ...data.alarms.map((a) => ({ ts: a.begin, level: a.severity, who: [a.plc, a.machine, a.field].filter(Boolean).join(" / ") || a.site, said: hw.alarm(a, data.now) })),
    ...data.events.map((e) => ({ ts: e.ts, level: e.level, who: e.process, said: w.event(e) })),
  ].sort((a, b) => b.ts - a.ts);
  const tone = { warning: "warn", aviso: "warn", error: "bad", critica: "bad" };
  by("happened").replaceChildren(...rows.slice(0, MAX_LISTED).map((r) =>
    h("li", {}, h("time", { datetime: new Date(r.ts).toISOString() }, w.time(r.ts)), h("span", { class: `pill ${tone[r.level] ?? ""}` }, w.t({ info: "lv_info", warning: "lv_warning", error: "lv_error" }[r.level] ?? `al_${r.level}`)), h("span", { class: "by" }, r.who), h("span", { class: "txt" }, r.said))));
  const more = rows.length - MAX_LISTED;
  text(by("happened-say"), [rows.length ? "" : w.t("h_nothing"), more > 0 ? w.t("al_more", { n: more }) : "", data.complete ? "" : w.t("h_partly")].filter(Boolean).join(" "));
}

// -- choosing ---------------------------------------------------------------------------------

function ranged(begin, end, done) {
  Object.assign(view, { begin, end, span: 0 });
  fill();
  if (!done) return;
  clearTimeout(due);
  due = setTimeout(() => { write(false); load(); }, SETTLE_MS);
}

const local = (ms) => new Date(ms - new Date(ms).getTimezoneOffset() * 60e3).toISOString().slice(0, 19);

function fill() {
  for (const button of by("spans").children) button.setAttribute("aria-pressed", String(Number(button.dataset.s) * 1000 === view.span));
  if (by("times").contains(document.activeElement)) return;
  by("from").value = local(view.begin);
  by("to").value = local(view.end);
}

by("times").addEventListener("submit", (e) => {
  e.preventDefault();
  const [begin, end] = [new Date(by("from").value).getTime(), new Date(by("to").value).getTime()];
  if (!(end > begin)) return void fault(w.t("h_order"));
  Object.assign(view, { begin, end, span: 0 });
  e.submitter?.focus();
  write(false);
  load();
});

function chosen() {
  const change = (keys) => { view.keys = keys; write(false); load(); };
  const add = h("button", { type: "button", class: "act", "aria-expanded": String(!by("picker").hidden), "aria-controls": "picker", id: "add", disabled: view.keys.length >= MAX_SERIES, onclick: () => pick(by("picker").hidden) }, w.t("h_add"));
  by("chosen").replaceChildren(...view.keys.map((key, i) => {
    const mark = h("i", { class: "dot" });
    mark.style.background = colour(i);
    return h("li", {}, mark, hw.nameOf(key), h("button", { type: "button", class: "drop", "aria-label": w.t("h_remove", { name: hw.nameOf(key) }), onclick: () => change(view.keys.filter((k) => k !== key)) }, "×"));
  }), h("li", { class: "plain" }, add));
}

async function pick(open) {
  by("picker").hidden = !open;
  by("add")?.setAttribute("aria-expanded", String(open));
  if (!open) return;
  if (view.keys.length) by("find").focus();
  try {
    const said = await ask("/series", new URLSearchParams({ find: by("find").value.trim(), limit: MAX_FOUND }));
    by("found").replaceChildren(...said.series.filter((s) => !view.keys.includes(s.key)).map((s) =>
      h("li", {}, h("button", { type: "button", onclick: () => { by("picker").hidden = true; view.keys = [...view.keys, s.key].slice(0, MAX_SERIES); write(false); load(); } },
        h("b", {}, s.field), ` ${s.unit ? `(${s.unit})` : ""}`, h("span", {}, [s.plc, s.group, s.machine].filter(Boolean).join(" / "))))));
    text(by("found-say"), said.count ? (said.count > said.series.length ? w.t("h_more_found", { n: said.count - said.series.length }) : "") : w.t("h_none_found"));
  } catch (e) {
    fault(e instanceof TypeError ? w.t("lost") : w.t("h_failed", { text: e.message }));
  }
}

let typing = 0;
by("find").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => pick(true), 200); });

// -- taking it along --------------------------------------------------------------------------

function save(blob, ending) {
  const link = h("a", { href: URL.createObjectURL(blob), download: `${w.t("h_file")}-${local(data.begin).replace(/[:T]/g, "-")}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

by("csv").addEventListener("click", () => data && save(new Blob(["\ufeff", csv(data)], { type: "text/csv;charset=utf-8" }), "csv"));
by("png").addEventListener("click", async () => data && save(await chart.picture(hw.title(data), data.series.map((s) => [s.name, s.i])), "png"));

// -- the page's life ----------------------------------------------------------------------------

function spoken() {
  document.title = `${w.t("history")} · plc-edge`;
  const button = (words, attributes, act) => h("button", { type: "button", class: "act", onclick: act, ...attributes }, words);
  by("spans").setAttribute("aria-label", w.t("h_spans"));
  by("spans").replaceChildren(...SPANS_S.map((s) => button(s < 172800 ? `${s / 3600} h` : `${s / 86400} d`, { "data-s": s }, () => { view.span = s * 1000; write(false); load(); })));
  by("moves").setAttribute("aria-label", w.t("h_moves"));
  const go = (act) => () => chart?.plot && act(chart, chart.end - chart.begin);
  by("moves").replaceChildren(
    button("◀", { "aria-label": w.t("h_earlier") }, go((c, span) => c.pan(-span / 2))),
    button("▶", { "aria-label": w.t("h_later") }, go((c, span) => c.pan(span / 2))),
    button("+", { "aria-label": w.t("h_nearer") }, go((c) => c.zoom(0.5))),
    button("−", { "aria-label": w.t("h_farther") }, go((c) => c.zoom(2))));
  again();
}

// Words and colours are drawn in.
function again() {
  chart?.close();
  chart = data = null;
  by("values").keyed?.clear();
  by("values").replaceChildren();
  load();
}

addEventListener("popstate", () => { read(); load(); });
document.addEventListener("visibilitychange", () => !document.hidden && view.span && load());
new ResizeObserver(() => chart?.resize()).observe(by("plot"));

read();
languageAndColours(spoken, again);
