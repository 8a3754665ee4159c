// What /api/history answers, as curves to draw, and as a table to take along. docs/historico-consultas.md
// says what the answer holds.

import { nameOf, reading } from "./history-words.js";
import * as w from "./words.js";

const GOOD = 0, UNCERTAIN = 1;

// One series: {key, name, i, kind, unit, ts, x, y, lo, hi, more, known, unknown, doubtful}.
// ts: when a value (or a step) begins; x: where it is drawn; y: null where nothing is known.
export function curve(s, answer, i) {
  const known = [answer.from, Math.min(answer.to, answer.now)];
  const base = { key: s.key, name: nameOf(s.key), i, kind: s.kind, unit: s.unit, known, unknown: s.unknown, doubtful: [], lo: null, hi: null };
  return answer.step_ms ? rolled(base, s, answer) : raw(base, s, answer);
}

function rolled(base, s, answer) {
  const middle = answer.step_ms / 2;
  // The newest step is not over, and its last value still holds.
  const part = (i) => (s.known_ms[i] && s.ts[i] + answer.step_ms > answer.now ? 1 : s.known_ms[i] / answer.step_ms);
  const partial = s.ts.some((t, i) => t < base.known[1] && part(i) < 0.999);
  const more = {
    counter: (i) => (s.increase[i] == null ? "" : `+${w.value(s.increase[i])}`),
    bool: (i) => (s.edges[i] == null ? "" : w.t("h_edges", { n: w.whole(s.edges[i]) })),
  }[s.kind];
  const y = { number: s.mean, bool: s.duty }[s.kind] ?? s.last;
  const [lo, hi] = s.kind === "number" ? [s.min, s.max] : [null, null];
  return { ...base, ts: s.ts, x: s.ts.map((t) => t + middle), y, lo, hi, more, part, partial };
}

// A value holds until the next one, or until nothing is known any more.
function raw(base, s, answer) {
  const ts = [], y = [], unknown = [...base.unknown], doubtful = [...base.doubtful];
  s.ts.forEach((t, i) => {
    const end = s.ts[i + 1] ?? base.known[1], quality = s.quality[i];
    if (quality !== GOOD) span(quality === UNCERTAIN ? doubtful : unknown, t, end, s.reasons[i] || "no value");
    ts.push(t);
    y.push(quality > UNCERTAIN ? null : s.values[i]);
  });
  const lines = s.kind === "number" || s.kind === "counter";
  const x = lines ? ts.slice() : ts, drawn = lines ? y.slice() : y;
  if (lines) {
    for (const [begin] of base.unknown) insert(x, drawn, begin);
    if (x.length && drawn.at(-1) != null && x.at(-1) < base.known[1]) x.push(base.known[1]), drawn.push(drawn.at(-1));
  }
  return { ...base, ts, y, x, drawn, unknown: unknown.sort((a, b) => a[0] - b[0]), doubtful };
}

function span(spans, begin, end, why) {
  const last = spans.at(-1);
  if (last && last[1] === begin && last[2] === why) last[1] = end;
  else spans.push([begin, end, why]);
}

// The line breaks here, and goes on with the next value.
function insert(xs, ys, at) {
  let i = xs.length;
  while (i && xs[i - 1] > at) i--;
  if (xs[i - 1] === at) ys[i - 1] = null;
  else xs.splice(i, 0, at), ys.splice(i, 0, null);
}

// As a spreadsheet of the page's language takes it.
export function csv(data) {
  const comma = w.language === "pt", mark = comma ? ";" : ",";
  const number = (v) => (comma ? String(v).replace(".", ",") : String(v));
  // A text of the PLC is no formula (OWASP, CSV injection).
  const text = (v) => (/^[=+\-@\t\r]/.test(v) ? `'${v}` : v);
  const cell = (v) => (v == null ? "" : typeof v === "number" ? number(v) : typeof v === "boolean" ? String(Number(v)) : `"${text(String(v)).replaceAll('"', '""')}"`);
  const zone = (ms) => { const off = -new Date(ms).getTimezoneOffset(), two = (n) => String(Math.floor(n)).padStart(2, "0"); return `${off < 0 ? "-" : "+"}${two(Math.abs(off) / 60)}:${two(Math.abs(off) % 60)}`; };
  const time = (ms) => `${new Date(ms - new Date(ms).getTimezoneOffset() * 60e3).toISOString().slice(0, -1)}${zone(ms)}`;
  const head = [w.t("t_time")];
  for (const s of data.series) {
    const name = s.unit ? `${s.name} [${s.unit}]` : s.name;
    head.push(name);
    if (s.lo) head.push(`${name} ${w.t("h_min")}`, `${name} ${w.t("h_max")}`);
    head.push(`${name} ${w.t(data.step_ms ? "h_known" : "h_quality")}`);
  }
  const at = data.series.map((s) => new Map(s.ts.map((t, i) => [t, i])));
  const times = [...new Set(data.series.flatMap((s) => s.ts))].sort((a, b) => a - b);
  const rows = times.map((t) => {
    const row = [time(t)];
    data.series.forEach((s, n) => {
      const i = at[n].get(t);
      if (i == null) row.push(...Array(s.lo ? 4 : 2).fill(""));
      else {
        row.push(cell(s.y[i]), ...(s.lo ? [cell(s.lo[i]), cell(s.hi[i])] : []));
        row.push(data.step_ms ? cell(Math.round(1000 * Math.min(1, s.part(i))) / 10) : cell(reading(s, i, t, data).quality));
      }
    });
    return row.join(mark);
  });
  return [head.map(cell).join(mark), ...rows, ""].join("\r\n");
}
