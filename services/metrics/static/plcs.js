// PLCs, their groups, the values in them. Values exist only for groups that are open.

import { attr, className, empty, h, list, text } from "./dom.js";
import { spark, Trend } from "./chart.js";
import * as w from "./words.js";

const TONE = { online: "ok", degraded: "warn", offline: "bad", no_reader: "bad", starting: "" };
const QUALITY = { good: "ok", uncertain: "warn", bad: "bad" };
const MAX_ROWS = 200;
const SPARK_POINTS = 180;
const FILTER_FROM = 12;

export class Plcs {
  // changed(): what is open has changed, the stream must follow; now(): the box's clock, ms.
  constructor(changed, now) {
    this.changed = changed;
    this.now = now;
    this.rows = [];
    this.groups = new Map(); // plc -> rows of groups
    this.units = {};
    this.sparks = {};
    this.open = new Set(); // plc
    this.openGroups = new Map(); // "plc/group" -> Values
    this.query = "";
    this.onlyProblems = false;
    this.history = false; // whether this box keeps one
    this.box = document.getElementById("plc-rows");
    this.none = document.getElementById("plc-none");
    const find = document.getElementById("find-plc");
    find.addEventListener("input", () => { this.query = find.value.trim().toLowerCase(); this.show(); });
    const only = document.getElementById("only-problems");
    only.addEventListener("change", () => { this.onlyProblems = only.checked; this.show(); });
    new ResizeObserver(() => { this.drawSparks(); for (const v of this.openGroups.values()) v.resize(); }).observe(this.box);
  }

  // What the stream is asked for.
  get subscription() {
    return { plcs: [...this.open], groups: [...this.openGroups.keys()] };
  }

  hello(data) {
    this.units = data.units;
    this.sparks = data.sparks;
    this.drawSparks();
    for (const values of this.openGroups.values()) values.reload();
  }

  status(rows) {
    this.rows = rows;
    this.show();
  }

  // Every 5 s a point of the line, the worst answer since the last; as the service keeps it.
  tick() {
    for (const row of this.rows) {
      const line = (this.sparks[row.id] ??= []);
      line.push(row.status === "offline" || row.status === "no_reader" ? null : row.latency_ms);
      if (line.length > SPARK_POINTS) line.shift();
    }
    this.drawSparks();
  }

  drawSparks() {
    for (const [id, row] of this.box.keyed ?? []) spark(row.canvas, this.sparks[id] ?? []);
  }

  show() {
    const wanted = this.rows.filter((r) =>
      (!this.query || `${r.id} ${r.ip} ${r.locatario}`.toLowerCase().includes(this.query)) &&
      (!this.onlyProblems || TONE[r.status] !== "ok" || r.bad_fields || !r.fresh));
    const before = this.box.keyed?.size ?? 0;
    list(this.box, wanted, (r) => r.id, (r) => this.make(r), (row, r) => this.update(row, r));
    this.none.hidden = wanted.length > 0 || !this.rows.length;
    if (this.box.keyed.size !== before) this.drawSparks();
  }

  make({ id }) {
    const row = { pill: h("span", { class: "pill" }), who: h("b"), ip: h("span"), latency: h("span", { class: "v" }), canvas: h("canvas", { "aria-hidden": "true" }) };
    const number = (key) => {
      const v = h("span", { class: "v" });
      row[key] = v;
      return h("span", { class: "cell num" }, h("span", { class: "k" }, w.t(`col_${key}`)), v);
    };
    row.button = h("button", { class: "line", type: "button", "aria-expanded": "false", "aria-controls": `plc-${id}`, onclick: () => this.toggle(id) },
      row.pill, h("span", { class: "who" }, row.who, row.ip),
      h("span", { class: "cell lat-cell" }, h("span", { class: "k" }, w.t("col_latency")), h("span", { class: "lat" }, row.latency, row.canvas)),
      number("scan"), number("reads"), number("bad"), h("span", { class: "chev", "aria-hidden": "true" }));
    row.say = h("p", { class: "say", hidden: true });
    row.groups = h("div", { class: "groups", id: `plc-${id}`, hidden: true });
    row.node = h("article", { class: "row plc", "data-plc": id, id: `at-${id}`, "aria-label": id }, row.button, row.say, row.groups);
    return row;
  }

  update(row, r) {
    const tone = TONE[r.status] ?? "";
    className(row.pill, `pill ${tone}`);
    text(row.pill, w.t(`st_${r.status}`));
    text(row.who, r.id);
    text(row.ip, r.locatario ? `${r.ip} · ${r.locatario}` : r.ip);
    const dead = tone !== "ok" && tone !== "warn";
    text(row.latency, dead ? "–" : w.ms(r.latency_ms));
    text(row.scan, dead ? "–" : w.ms(r.scan_ms));
    text(row.reads, dead ? "–" : w.fixed(r.reads_per_s, 1));
    text(row.bad, w.whole(r.bad_fields));
    className(row.bad, r.bad_fields ? "v warn" : "v");
    const worry = dead && r.status !== "starting" ? "bad" : tone === "warn" || r.bad_fields ? "warn" : "";
    className(row.node, `row plc ${worry}`);
    this.sayWhy(row, r);
    const open = this.open.has(r.id);
    attr(row.button, "aria-expanded", String(open));
    row.groups.hidden = !open;
    if (open) this.showGroups(row.groups, r.id);
  }

  // The last error, in words, with what to check.
  sayWhy(row, r) {
    row.say.hidden = !r.problem;
    if (!r.problem) return;
    const [what, fix] = w.problem(r.problem);
    const parts = [];
    if (r.failure?.attempts > 1) parts.push(w.t("attempts", { n: w.whole(r.failure.attempts) }));
    parts.push(r.read_age_s == null ? w.t("never_read") : w.t("last_read", { age: w.age(r.read_age_s) }));
    className(row.say, r.problem.severity === "warning" ? "say warn" : "say");
    const key = [what, fix].join("|");
    if (row.say.key !== key) {
      row.say.key = key;
      row.more = h("span", { class: "fix" });
      row.say.replaceChildren(h("b", {}, what), fix ? h("span", { class: "fix" }, `: ${fix.charAt(0).toLowerCase()}${fix.slice(1)}. `) : ". ", row.more);
    }
    text(row.more, `(${parts.join(", ")})`);
  }

  toggle(id) {
    if (this.open.delete(id)) {
      for (const [key, values] of this.openGroups) {
        if (key.startsWith(`${id}/`)) this.closeGroup(key, values);
      }
      this.groups.delete(id);
      empty(this.box.keyed.get(id).groups);
    } else this.open.add(id);
    this.show();
    this.changed();
  }

  setGroups(plc, rows) {
    this.groups.set(plc, rows);
    const row = this.box.keyed?.get(plc);
    if (row && this.open.has(plc)) this.showGroups(row.groups, plc);
  }

  showGroups(box, plc) {
    list(box, this.groups.get(plc) ?? [], (g) => g.name, (g) => this.makeGroup(plc, g), (row, g) => {
      const key = `${plc}/${g.name}`, open = this.openGroups.has(key);
      const stale = g.age_s == null || g.age_s > Math.max(3 * g.scan_s, 5);
      const tone = stale ? "bad" : QUALITY[g.quality] ?? "";
      className(row.pill, `pill ${tone}`);
      text(row.pill, g.quality ? w.t(`q_${stale ? "bad" : g.quality}`) : "–");
      text(row.age, g.age_s == null ? w.t("no_data") : w.t("age", { age: w.age(g.age_s) }));
      className(row.age, stale ? "v bad" : "v");
      text(row.took, w.ms(g.duration_ms));
      const bad = Object.keys(g.bad).length;
      text(row.bad, w.whole(bad));
      className(row.bad, bad ? "v warn" : "v");
      attr(row.button, "aria-expanded", String(open));
      row.values.hidden = !open;
    });
  }

  makeGroup(plc, g) {
    const key = `${plc}/${g.name}`, id = `g-${plc}-${g.name}`;
    const row = { pill: h("span", { class: "pill" }), age: h("span", { class: "v" }), took: h("span", { class: "v" }), bad: h("span", { class: "v" }), values: h("div", { class: "values", id, hidden: true }) };
    const cell = (label, node, more = "") => h("span", { class: `cell ${more}` }, h("span", { class: "k" }, label), node);
    row.button = h("button", { class: "line", type: "button", "aria-controls": id, onclick: () => this.toggleGroup(key, plc, g, row.values) },
      row.pill, h("span", { class: "who" }, h("b", {}, g.name), h("span", {}, w.t("every", { s: w.span(g.scan_s) }))),
      cell(w.t("col_age"), row.age), cell(w.t("col_scan"), row.took, "opt"), cell(w.t("col_bad"), row.bad, "opt"), h("span", { class: "chev", "aria-hidden": "true" }));
    row.node = h("div", { class: "group", "data-group": key }, row.button, row.values);
    return row;
  }

  toggleGroup(key, plc, g, box) {
    const values = this.openGroups.get(key);
    if (values) this.closeGroup(key, values);
    else this.openGroups.set(key, new Values(box, plc, g.name, g.scan_s, () => this.units[plc]?.[g.name] ?? {}, this.now, () => this.history));
    this.showGroups(box.closest(".groups"), plc);
    this.changed();
  }

  closeGroup(key, values) {
    values.close();
    this.openGroups.delete(key);
  }

  message(body) {
    this.openGroups.get(`${body.plc_id}/${body.group}`)?.message(body);
  }

  // Ages go on while nothing comes.
  everySecond() {
    for (const values of this.openGroups.values()) values.ages();
  }

  // Words are written once: another language, or other colours, means writing anew.
  rebuild() {
    for (const values of this.openGroups.values()) values.close();
    this.openGroups.clear();
    empty(this.box);
    this.show();
    this.drawSparks();
  }
}

class Values {
  constructor(box, plc, group, scanS, units, now, history) {
    Object.assign(this, { box, plc, group, scanS, units, now, history });
    this.machines = new Map(); // name -> {body, head, age, quality}
    this.fields = new Map(); // name -> {node, cells: Map(machine -> td), trend}
    this.shown = MAX_ROWS;
    this.query = "";
    this.headRow = h("tr", {}, h("th", { scope: "col" }, w.t("field")));
    this.body = h("tbody");
    this.find = h("input", { type: "search", autocomplete: "off", placeholder: w.t("filter_field"), "aria-label": w.t("filter_field"),
      oninput: () => { this.query = this.find.value.trim().toLowerCase(); this.filter(); } });
    this.findBox = h("div", { class: "find", hidden: true }, this.find);
    this.more = h("button", { class: "more", type: "button", hidden: true, onclick: () => { this.shown += MAX_ROWS; this.filter(); } });
    this.wait = h("p", { class: "none" }, w.t("no_data"));
    this.scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${plc} ${group}`, hidden: true },
      h("table", { class: "vals" }, h("thead", {}, this.headRow), this.body));
    box.replaceChildren(this.wait, this.findBox, this.scroll, this.more);
  }

  message(body) {
    const name = body.machine ?? "";
    let machine = this.machines.get(name);
    if (!machine) this.machines.set(name, (machine = this.addMachine(name)));
    machine.body = body;
    const bad = body.bad ?? {};
    // Nothing could be read: then no old value may stand there as if it were one.
    if (bad["*"]) for (const row of this.fields.values()) this.write(row, name, undefined, bad["*"], body.ts);
    for (const field of [...Object.keys(body.values), ...Object.keys(bad)]) {
      if (field === "*") continue;
      if (!this.fields.has(field)) this.addField(field);
      this.write(this.fields.get(field), name, body.values[field], bad[field] ?? null, body.ts);
    }
    this.age(machine);
  }

  addMachine(name) {
    this.wait.hidden = true;
    this.scroll.hidden = false;
    const machine = { name, stale: false, quality: h("span"), age: h("span") };
    this.headRow.append(h("th", { scope: "col" }, h("span", { class: "m" }, name || w.t("value")), (machine.head = h("span", { class: "q" }, machine.quality, " ", machine.age))));
    for (const [field, row] of this.fields) this.addCell(row, field, name);
    return machine;
  }

  addField(field) {
    const row = { cells: new Map(), trend: null };
    row.button = h("button", { class: "open-trend", type: "button", "aria-expanded": "false", title: w.t("trend_hint", { field }), onclick: () => this.toggleTrend(field) }, field);
    row.button.append(trendIcon());
    row.node = h("tr", { "data-field": field }, h("th", { scope: "row" }, row.button));
    for (const name of this.machines.keys()) this.addCell(row, field, name);
    this.fields.set(field, row);
    if (this.fields.size > this.shown || !this.fits(field)) row.node.hidden = true;
    this.body.append(row.node);
    this.findBox.hidden = this.fields.size < FILTER_FROM;
    this.showMore();
  }

  addCell(row, field, machine) {
    // A value leads to its history, where there is one.
    const value = h("a", { class: "val", href: this.historyOf(field, [machine]), title: this.historyOf(field, [machine]) && w.t("h_open", { field }) });
    const unit = this.units()[field];
    const td = h("td", {}, value, unit ? h("span", { class: "u" }, unit) : null);
    row.cells.set(machine, { td, value, last: undefined });
    row.node.append(td);
  }

  // Of an array each element has one.
  historyOf(field, machines) {
    if (!this.history()) return null;
    const keys = machines.flatMap((m) => {
      const value = this.machines.get(m)?.body?.values?.[field];
      const names = Array.isArray(value) ? value.map((_, i) => `${field}.${i}`) : [field];
      return names.map((name) => ["s", [this.plc, this.group, m, name].join("/")]);
    });
    return `history?${new URLSearchParams(keys.slice(0, 8))}`;
  }

  write(row, machine, value, bad, ts) {
    const cell = row.cells.get(machine);
    const shown = bad != null || value === undefined ? `✕ ${w.reason(bad ?? "no value")}` : w.value(value);
    if (cell.last !== shown) {
      cell.value.textContent = shown;
      cell.td.classList.toggle("badv", bad != null);
      if (cell.td.lastChild !== cell.value) cell.td.lastChild.hidden = bad != null;
      if (cell.last !== undefined && !row.node.hidden && !calm.matches) {
        cell.td.animate([{ backgroundColor: "var(--flash)" }, { backgroundColor: "transparent" }], 900);
      }
      cell.last = shown;
    }
    if (bad == null) row.trend?.add(machine, ts, value);
  }

  fits(field) {
    return !this.query || field.toLowerCase().includes(this.query);
  }

  filter() {
    let n = 0;
    for (const [field, row] of this.fields) {
      const fits = this.fits(field);
      row.node.hidden = !fits || n >= this.shown;
      if (row.trendRow) row.trendRow.hidden = row.node.hidden;
      n += fits;
    }
    this.showMore();
  }

  showMore() {
    let n = 0;
    for (const field of this.fields.keys()) n += this.fits(field);
    this.more.hidden = n <= this.shown;
    if (!this.more.hidden) text(this.more, w.t("more_rows", { n: Math.min(MAX_ROWS, n - this.shown) }));
  }

  age(machine) {
    const seconds = (this.now() - machine.body.ts) / 1000;
    const stale = seconds > Math.max(3 * this.scanS, 5);
    const quality = stale ? "bad" : machine.body.quality;
    if (machine.stale !== stale) {
      machine.stale = stale;
      for (const row of this.fields.values()) row.cells.get(machine.name).td.classList.toggle("old", stale);
    }
    className(machine.head, `q ${quality === "good" ? "" : QUALITY[quality] ?? ""}`);
    text(machine.quality, w.t(`q_${quality}`));
    text(machine.age, `· ${w.t("age", { age: w.age(seconds) })}`);
  }

  ages() {
    for (const machine of this.machines.values()) if (machine.body) this.age(machine);
  }

  toggleTrend(field) {
    const row = this.fields.get(field);
    attr(row.button, "aria-expanded", String(!row.trend));
    if (row.trend) {
      row.trend.close();
      row.trendRow.remove();
      row.trend = row.trendRow = null;
      return;
    }
    const box = h("div", { class: "trend", "data-title": w.t("trend_of", { field }) }, h("p", {}, w.t("trend_wait")));
    const days = this.historyOf(field, [...this.machines.keys()]);
    if (days) box.append(h("a", { href: days }, w.t("h_all")));
    row.trendRow = h("tr", { class: "trend-row" }, h("td", { colspan: String(this.machines.size + 1) }, box));
    row.node.after(row.trendRow);
    row.trend = new Trend(box, this.plc, this.group, [...this.machines.keys()], field, document.documentElement.lang, this.scanS);
  }

  // The stream has come back: what was missed is at the server.
  reload() {
    for (const row of this.fields.values()) row.trend?.load();
  }

  resize() {
    for (const row of this.fields.values()) row.trend?.resize();
  }

  close() {
    for (const row of this.fields.values()) row.trend?.close();
    this.box.replaceChildren();
  }
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");

function trendIcon() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [k, v] of Object.entries({ viewBox: "0 0 16 12", width: 16, height: 12, "aria-hidden": "true", fill: "none", stroke: "currentColor", "stroke-width": 2 })) svg.setAttribute(k, v);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M1 9l4-5 3 4 3-6 4 4");
  svg.append(path);
  return svg;
}
