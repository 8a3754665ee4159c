// Health at a glance, outputs, outbox, mirrors, processes, events.

import { attr, className, empty, h, list, text } from "./dom.js";
import * as w from "./words.js";

const by = (id) => document.getElementById(id);
const TONE = { ok: "ok", degraded: "warn", down: "bad", disabled: "", unknown: "" };
const MAX_PROBLEMS = 8;
const MAX_EVENTS = 50;

export function health(s, now) {
  className(by("verdict"), `verdict ${s.status}`);
  text(by("overall"), w.t(`overall_${s.status}`));
  const n = s.problems.length;
  text(by("summary"), n ? w.t(n === 1 ? "sum_one" : "sum_many", { n }) : w.t(s.status === "starting" ? "sum_starting" : "sum_ok"));
  const shown = s.problems.slice(0, MAX_PROBLEMS);
  if (n > MAX_PROBLEMS) shown.push({ more: n - MAX_PROBLEMS });
  list(by("problems"), shown, (p) => (p.more ? "more" : `${p.code}|${p.subject}`), makeProblem, (row, p) => {
    if (p.more) {
      text(row.what, w.t("more_problems", { n: p.more }));
      return;
    }
    const [what, fix] = w.problem(p);
    className(row.node, `problem ${p.severity}`);
    text(row.mark, p.severity === "error" ? "✕" : "!");
    text(row.subject, p.subject);
    text(row.what, what);
    text(row.fix, fix ? `${fix}.`.replace(/\.\.$/, ".") : "");
    text(row.when, w.t("since", { age: w.span(Math.ceil((now - p.since) / 1000)) }));
  });
  tiles(s);
}

// Where on the page the thing with the problem stands.
function where(p) {
  if (/^(plc_|fields_)/.test(p.code)) return `#at-${p.subject}`;
  if (/^(output_|store_)/.test(p.code)) return "#outputs";
  return p.code.startsWith("mirror_") ? "#mirrors" : "#processes";
}

function makeProblem(p) {
  const row = { mark: h("span", { class: "mark", "aria-hidden": "true" }), subject: h("a", { class: "subject", href: where(p) }), what: h("span"), fix: h("span", { class: "fix" }), when: h("span", { class: "when" }) };
  row.node = p.more ? h("li", { class: "none" }, row.what)
    : h("li", { class: "problem" }, row.mark, h("span", { class: "what" }, row.subject, row.what), row.when, row.fix);
  return row;
}

function tiles(s) {
  // Degraded is connected: some of its fields are refused.
  const online = s.plcs.filter((p) => p.status === "online" || p.status === "degraded").length;
  const pending = s.outputs.reduce((sum, o) => sum + (o.pending ?? 0), 0);
  const oldest = Math.max(0, ...s.outputs.map((o) => o.oldest_age_s ?? 0));
  const up = s.processes.filter((p) => p.up).length;
  const fill = s.store.fill;
  const rows = [
    { key: "plcs", big: w.whole(online), small: w.t("of", { n: s.plcs.length }), tone: online < s.plcs.length && s.status !== "starting" ? "bad" : "" },
    { key: "reads", big: w.whole(s.plcs.reduce((sum, p) => sum + p.reads_per_s, 0)) },
    { key: "pending", big: w.whole(pending), note: pending ? w.t("tile_pending_note", { age: w.age(oldest) }) : w.t("tile_pending_none"), tone: oldest > 60 ? "warn" : "" },
    { key: "store", big: fill == null ? "–" : w.fixed(100 * fill, fill < 0.1 ? 1 : 0), small: "%", fill, tone: fill >= 0.8 ? "warn" : "" },
    { key: "processes", big: s.supervisor.reachable ? w.whole(up) : "?", small: w.t("of", { n: s.processes.length }), tone: s.supervisor.reachable && up < s.processes.length && s.status !== "starting" ? "bad" : "" },
  ];
  list(by("tiles"), rows, (r) => r.key, (r) => {
    const row = { big: h("span"), small: h("small"), note: h("p", { class: "note" }), bar: r.fill === undefined ? null : h("i") };
    row.node = h("li", { class: "tile" }, h("p", { class: "label" }, w.t(`tile_${r.key}`)), h("p", { class: "big" }, row.big, " ", row.small), row.bar ? h("div", { class: "meter", "aria-hidden": "true" }, row.bar) : row.note);
    return row;
  }, (row, r) => {
    className(row.node, `tile ${r.tone ?? ""}`);
    text(row.big, r.big);
    text(row.small, r.small ?? "");
    text(row.note, r.note ?? "");
    if (row.bar) row.bar.style.width = `${100 * (r.fill ?? 0)}%`;
  });
}

const cell = (label, node, more = "") => h("span", { class: `cell ${more}` }, h("span", { class: "k" }, label), node);
const number = () => h("span", { class: "v" });

// The problem of a thing, shown where the thing is.
function say(row, problem) {
  row.say.hidden = !problem;
  if (!problem) return;
  const [what, fix] = w.problem(problem);
  className(row.say, problem.severity === "warning" ? "say warn" : "say");
  const key = `${what}|${fix}`;
  if (row.say.key === key) return;
  row.say.key = key;
  row.say.replaceChildren(h("b", {}, what), h("span", { class: "fix" }, fix ? `: ${fix.charAt(0).toLowerCase()}${fix.slice(1)}.`.replace(/\.\.$/, ".") : "."));
}

export function outputs(s) {
  const box = by("output-rows");
  if (!s.outputs.length) return void box.replaceChildren(h("p", { class: "none" }, w.t("no_outputs")));
  list(box, s.outputs, (o) => o.name, (o) => {
    const row = { pill: h("span", { class: "pill" }), target: h("span"), pending: number(), oldest: number(), rate: number(), sent: number(), say: h("p", { class: "say", hidden: true }) };
    row.node = h("article", { class: "row out", "data-output": o.name, "aria-label": o.name }, h("div", { class: "line" }, row.pill, h("span", { class: "who" }, h("b", {}, o.name), row.target),
      ...["pending", "oldest", "rate", "sent"].map((k) => cell(w.t(k), row[k]))), row.say);
    return row;
  }, (row, o) => {
    const tone = TONE[o.status] ?? "";
    className(row.pill, `pill ${tone}`);
    text(row.pill, w.t(`st_${o.status}`));
    text(row.target, [o.type, o.target].filter(Boolean).join(" · "));
    text(row.pending, o.pending == null ? "–" : w.whole(o.pending));
    text(row.oldest, o.pending ? w.age(o.oldest_age_s ?? 0) : "–");
    className(row.oldest, o.oldest_age_s > 60 && o.pending ? "v warn" : "v");
    text(row.rate, w.fixed(o.rate_per_s, 1));
    text(row.sent, w.whole(o.published));
    const problem = s.problems.find((p) => p.subject === o.name && p.code.startsWith("output_"));
    className(row.node, `row out ${problem ? (problem.severity === "error" ? "bad" : "warn") : ""}`);
    say(row, problem);
  });
  store(s.store);
}

function store(s) {
  const box = by("store");
  if (!box.row) {
    const row = (box.row = { use: h("span", { class: "use" }), bar: h("i"), meter: null, drop: h("p", { class: "drop", hidden: true }) });
    row.meter = h("div", { class: "meter", role: "meter", "aria-label": w.t("store"), "aria-valuemin": "0", "aria-valuemax": "100" }, row.bar);
    box.replaceChildren(h("div", { class: "t" }, h("b", {}, w.t("store")), h("span", {}, w.t("store_note")), row.use), row.meter, row.drop);
  }
  const { row } = box, percent = s.fill == null ? 0 : 100 * s.fill;
  text(row.use, s.bytes == null ? "–" : w.t("store_used", { used: w.bytes(s.bytes), max: s.max_bytes ? w.bytes(s.max_bytes) : "?", percent: w.fixed(percent, percent < 10 ? 1 : 0) }));
  attr(row.meter, "aria-valuenow", String(Math.round(percent)));
  className(row.meter, percent >= 80 ? "meter warn" : "meter");
  row.bar.style.width = `${percent}%`;
  row.drop.hidden = !s.dropped;
  if (s.dropped) text(row.drop, w.t("dropped", { n: w.whole(s.dropped) }));
}

export function mirrors(s) {
  const box = by("mirror-rows");
  by("mirrors").hidden = !s.mirrors.length;
  list(box, s.mirrors, (m) => m.name, (m) => {
    const row = { pill: h("span", { class: "pill" }), way: h("span"), lag: number(), last_write: number(), byte_rate: number(), faults: number(), say: h("p", { class: "say", hidden: true }) };
    row.node = h("article", { class: "row out", "data-mirror": m.name, "aria-label": m.name }, h("div", { class: "line" }, row.pill, h("span", { class: "who" }, h("b", {}, m.name), row.way),
      ...["lag", "last_write", "byte_rate", "faults"].map((k) => cell(w.t(k), row[k]))), row.say);
    return row;
  }, (row, m) => {
    className(row.pill, `pill ${TONE[m.status] ?? ""}`);
    text(row.pill, w.t(`st_${m.status}`));
    text(row.way, m.source && m.target ? `${m.source} → ${m.target}` : "");
    text(row.lag, w.ms(m.last_write_ms && m.lag_ms));
    text(row.last_write, m.last_write_ms ? w.t("age", { age: w.span(Math.max(0, (s.ts - m.last_write_ms) / 1000)) }) : "–");
    text(row.byte_rate, `${w.bytes(m.bytes_per_s ?? 0)}/s`);
    text(row.faults, w.whole(m.mismatches + m.refusals));
    className(row.faults, m.mismatches + m.refusals ? "v warn" : "v");
    const problem = s.problems.find((p) => p.subject === m.name && p.code.startsWith("mirror_"));
    className(row.node, `row out ${problem ? (problem.severity === "error" ? "bad" : "warn") : ""}`);
    say(row, problem);
  });
}

export function processes(s) {
  list(by("process-rows"), s.processes, (p) => p.name, (p) => {
    const cells = ["uptime", "restarts", "cpu", "memory", "fds"].map((k) => [k, h("td", { class: "n" })]);
    const row = { pill: h("span", { class: "pill" }), ...Object.fromEntries(cells) };
    row.node = h("tr", { "data-process": p.name }, h("th", { scope: "row" }, p.name), h("td", {}, row.pill), ...cells.map(([, n]) => n));
    return row;
  }, (row, p) => {
    const tone = p.state === "UNKNOWN" ? "" : p.flapping ? "warn" : p.up ? "ok" : p.state === "STARTING" ? "" : "bad";
    className(row.pill, `pill ${tone}`);
    text(row.pill, w.t(p.state));
    text(row.uptime, p.up ? w.span(p.uptime_s) : "–");
    text(row.restarts, w.whole(p.restarts));
    text(row.cpu, p.up ? `${w.fixed(p.cpu_percent, 1)} %` : "–");
    text(row.memory, p.rss_bytes ? w.bytes(p.rss_bytes) : "–");
    text(row.fds, p.fds ? w.whole(p.fds) : "–");
  });
}

const LEVEL = { info: "", warning: "warn", error: "bad" };

export class Events {
  constructor() {
    this.all = [];
  }

  set(events) {
    this.all = events.slice(-MAX_EVENTS);
    empty(by("event-rows"));
    this.show();
  }

  add(event) {
    this.all = [...this.all.slice(1 - MAX_EVENTS), event];
    this.show();
  }

  show() {
    by("event-none").hidden = this.all.length > 0;
    list(by("event-rows"), [...this.all].reverse(), (e) => (e.id ??= `${e.ts}|${e.process}|${e.code}|${e.text}`), (e) => ({
      node: h("li", {}, h("time", { datetime: new Date(e.ts).toISOString() }, w.time(e.ts)), h("span", { class: `pill ${LEVEL[e.level] ?? ""}` }, w.t(`lv_${e.level}`)), h("span", { class: "by" }, e.process), h("span", { class: "txt" }, w.event(e))),
    }), () => {});
  }
}

export function rebuild() {
  for (const id of ["problems", "tiles", "output-rows", "mirror-rows", "process-rows", "event-rows"]) empty(by(id));
  by("store").row = null;
}
