// What the history page says of values, times and what happened.

import * as w from "./words.js";

const locale = () => (w.language === "pt" ? "pt-BR" : "en-GB");

// "prensa-01/db500/m03/temperatura" as people read it.
export function nameOf(key) {
  const [plc, group, machine, ...field] = key.split("/");
  return [field.join("/"), [plc, group, machine].filter(Boolean).join(" / ")].join(" · ");
}

export function moment(ms, data) {
  const fine = data.end - data.begin < 600e3 ? { fractionalSecondDigits: 3 } : {};
  return new Date(ms).toLocaleString(locale(), { day: "2-digit", month: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", ...fine });
}

export function title(data) {
  const form = { dateStyle: "short", timeStyle: "short" };
  const range = new Intl.DateTimeFormat(locale(), form).formatRange(data.begin, data.end);
  return `${range} · ${data.step_ms ? w.t("h_step", { step: w.span(data.step_ms / 1000) }) : w.t("h_raw")}`;
}

// What the marks mean, as far as any are there.
export function legend(data) {
  const found = [];
  if (data.step_ms && data.series.some((s) => s.lo)) found.push(["band", w.t("h_band")]);
  if (data.series.some((s) => s.unknown.length || s.partial)) found.push(["unknown", w.t("h_unknown")]);
  if (data.series.some((s) => s.doubtful.length)) found.push(["doubtful", w.t("q_uncertain")]);
  if (data.step_ms && data.series.some((s) => s.kind === "bool")) found.push(["duty", w.t("h_duty")]);
  return found;
}

const covering = (spans, t) => spans.find(([begin, end]) => begin <= t && t < end);

// One value, at index i of a curve: {value, range, quality, tone}
export function reading(s, i, t, data) {
  const gone = covering(s.unknown, t), doubt = covering(s.doubtful, t);
  const reason = gone && gone[2] ? why(gone[2]) : w.t("h_not_known");
  const stepped = Boolean(data.step_ms);
  if (i < 0 || s.y[i] == null || (gone && !stepped)) return { value: "–", range: "", quality: gone || i >= 0 ? reason : w.t("no_data"), tone: gone || i >= 0 ? "bad" : "" };
  const unit = s.unit ? ` ${s.unit}` : "";
  const value = s.kind === "bool" ? (stepped ? `${w.fixed(100 * s.y[i], 1)} %` : w.value(Boolean(s.y[i]))) : w.value(stepped && s.kind === "number" ? Number(s.y[i].toPrecision(6)) : s.y[i]) + unit;
  const range = s.lo ? `${w.value(s.lo[i])} … ${w.value(s.hi[i])}` : s.more ? s.more(i) : "";
  const part = stepped ? s.part(i) : 1;
  if (part < 0.999) return { value, range, quality: w.t("h_part", { percent: w.whole(Math.max(1, 100 * part)) }) + (gone && gone[2] ? `: ${reason}` : ""), tone: "warn" };
  if (doubt) return { value, range, quality: `${w.t("q_uncertain")}: ${w.reason(doubt[2])}`, tone: "warn" };
  return { value, range, quality: w.t("q_good"), tone: "" };
}

// Words of the historian; the others are those of values that could not be read.
function why(code) {
  const words = w.t(`h_why_${code}`);
  return words === `h_why_${code}` ? w.reason(code) : words;
}

export function alarm(a, now) {
  const lasted = w.span(((a.end ?? now) - a.begin) / 1000);
  return `${a.text || a.rule} (${a.end == null ? w.t("h_rings", { age: lasted }) : w.t("h_rang", { age: lasted })})`;
}
