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
  if (data.series.some((s) => s.unknown.length)) found.push(["unknown", w.t("h_unknown")]);
  if (data.series.some((s) => s.doubtful.length)) found.push(["doubtful", w.t("q_uncertain")]);
  if (data.step_ms && data.series.some((s) => s.kind === "bool")) found.push(["duty", w.t("h_duty")]);
  return found;
}

const covering = (spans, t) => spans.find(([begin, end]) => begin <= t && t < end);

// One value, at index i of a curve: {value, range, quality, tone}
export function reading(s, i, t, data) {
  const gone = covering(s.unknown, t), doubt = covering(s.doubtful, t);
  const unit = s.unit ? ` ${s.unit}` : "";
  const none = { value: "–", range: "", quality: gone ? why(gone[2]) : w.t("no_data"), tone: gone ? "bad" : "" };
  if (i < 0 || s.y[i] == null || (gone && !data.step_ms)) return none;
  const shown = s.kind === "bool" && data.step_ms ? `${w.fixed(100 * s.y[i], 1)} %` : w.value(s.kind === "bool" ? Boolean(s.y[i]) : s.y[i]) + unit;
  const range = s.lo ? `${w.value(s.lo[i])} … ${w.value(s.hi[i])}` : s.more ? s.more(i) : "";
  if (gone) return { value: shown, range, quality: w.t("h_partly_known", { why: why(gone[2]) }), tone: "warn" };
  if (doubt) return { value: shown, range, quality: `${w.t("q_uncertain")}: ${w.reason(doubt[2])}`, tone: "warn" };
  return { value: shown, range, quality: w.t("q_good"), tone: "" };
}

const why = (code) => (w.language && w.t(`h_why_${code}`) !== `h_why_${code}` ? w.t(`h_why_${code}`) : w.reason(code));

export function alarm(a, now) {
  const lasted = w.span(((a.end ?? now) - a.begin) / 1000);
  return `${a.text || a.rule} (${a.end == null ? w.t("h_rings", { age: lasted }) : w.t("h_rang", { age: lasted })})`;
}
