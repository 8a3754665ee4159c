// Language and number formats. All words stand in words.json, which the terminal reads too.

const words = await (await fetch("static/words.json")).json();

export let language = "en";
let number = new Intl.NumberFormat("en", { maximumFractionDigits: 7 });

export function choose(wanted) {
  language = wanted === "pt" ? "pt" : "en";
  const locale = language === "pt" ? "pt-BR" : "en";
  number = new Intl.NumberFormat(locale, { maximumFractionDigits: 7 });
  document.documentElement.lang = locale;
}

// The first of the browser's languages that we have.
export function preferred() {
  for (const name of navigator.languages ?? [navigator.language]) {
    if (/^pt\b/i.test(name)) return "pt";
    if (/^en\b/i.test(name)) return "en";
  }
  return "en";
}

const fill = (template, params = {}) =>
  template.replace(/\{(\w+)\}/g, (whole, name) => params[name] ?? whole);

export const t = (key, params) => fill(words.ui[language][key] ?? key, params);

// [what is wrong, what to check]
export function problem(p) {
  const pair = words.problems[p.code]?.[language];
  return pair ? pair.map((s) => fill(s, p.params)) : [p.text, p.fix];
}

// What the history refused, in the page's language where it has a word for it.
export const refusal = (said) => words.ui[language][`h_${said.error}`] ?? said.text;

export const reason = (code) => words.reasons[code]?.[language] ?? code.replaceAll("_", " ");

export function event(e) {
  const template = words.events[e.code]?.[language];
  return template ? fill(template, { process: e.process, ...e.fields }) : e.text;
}

export function value(v) {
  if (typeof v === "number") return number.format(v);
  if (typeof v === "boolean") return t(v ? "yes" : "no");
  if (Array.isArray(v)) return `[${v.map(value).join("; ")}]`;
  return String(v);
}

export const fixed = (v, digits) =>
  v.toLocaleString(language === "pt" ? "pt-BR" : "en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });

export const whole = (v) => Math.round(v).toLocaleString(language === "pt" ? "pt-BR" : "en");

export const ms = (v) => (v == null ? "–" : `${fixed(v, v < 10 ? 1 : 0)} ms`);

// How old something is, and (below) how long something has lasted.
export const age = (seconds) => (seconds < 10 ? `${fixed(Math.max(0, seconds), 1)} s` : span(seconds));

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s > 0 && s < 1) return `${whole(s * 1000)} ms`;
  if (s < 120) return `${Math.floor(s)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

export function bytes(v) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (v >= 1024 && i < 4) (v /= 1024), i++;
  return `${fixed(v, v < 10 && i ? 1 : 0)} ${units[i]}`;
}

export function time(ms) {
  const at = new Date(ms);
  const locale = language === "pt" ? "pt-BR" : "en-GB";
  const today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString(locale) : at.toLocaleString(locale, { dateStyle: "short", timeStyle: "medium" });
}
