// Alarms: what rings, and what people do about it.

import { className, empty, h, list, text } from "./dom.js";
import * as w from "./words.js";

const by = (id) => document.getElementById(id);
const EVERY_MS = 2000;
const TONE = { critica: "bad", aviso: "warn", informacao: "" };
const TIMES_S = [900, 3600, 8 * 3600, 24 * 3600];
const PLACE = ["locatario", "site", "plc", "group", "machine", "field"];

const keyOf = (a) => [a.rule, ...PLACE.map((k) => a[k] ?? "")].join("|");
const placeOf = (a) => Object.fromEntries([["rule", a.rule], ...PLACE.map((k) => [k, a[k] ?? ""])]);

export class Alarms {
  constructor(now) {
    this.now = now;
    this.there = false; // an engine is configured here
    this.data = null;
    this.fault = "";
    this.done = ""; // what was done last, in words
    this.known = null; // keys of what rang at the last look, for the sound
    this.asking = false;
    by("alarm-sound").addEventListener("change", (e) => e.target.checked && this.beep());
    setInterval(() => this.look(), EVERY_MS);
  }

  // The status says every second which processes there are.
  status(processes) {
    const there = processes.some((p) => p.name === "alerts");
    if (there === this.there) return;
    this.there = there;
    by("alarms").hidden = !there;
    this.look();
  }

  async look() {
    if (!this.there || document.hidden || this.asking) return;
    this.asking = true;
    try {
      const answer = await fetch("api/alarms", { cache: "no-store" });
      const data = await answer.json();
      this.fault = answer.ok ? "" : "al_away";
      if (answer.ok) this.data = data;
    } catch {
      this.fault = "al_away"; // the page says itself that it has no contact
    } finally {
      this.asking = false;
    }
    this.ring();
    this.draw();
  }

  ring() {
    if (this.fault || !this.data) return;
    const rings = this.data.alarms.filter((a) => a.state === "disparando" && !a.silenciado && !a.confirmado);
    const keys = new Set(rings.map((a) => `${keyOf(a)}|${a.since}`));
    const fresh = this.known && [...keys].some((k) => !this.known.has(k));
    this.known = keys;
    if (fresh && by("alarm-sound").checked) this.beep();
  }

  // Two short tones; no file to load. Browsers allow it after the click that switched it on.
  beep() {
    this.audio ??= new AudioContext();
    for (const [i, pitch] of [880, 660].entries()) {
      const at = this.audio.currentTime + i * 0.18;
      const tone = this.audio.createOscillator();
      const volume = this.audio.createGain();
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0.2, at);
      volume.gain.exponentialRampToValueAtTime(0.001, at + 0.16);
      tone.connect(volume).connect(this.audio.destination);
      tone.start(at);
      tone.stop(at + 0.17);
    }
    by("alarms").dataset.beeps = String(Number(by("alarms").dataset.beeps ?? 0) + 1);
  }

  draw() {
    if (!this.there) return;
    const alarms = this.data?.alarms ?? [];
    const ringing = alarms.filter((a) => a.state === "disparando").length;
    const more = this.data ? this.data.count - alarms.length : 0;
    text(by("alarm-count"), this.data ? `(${w.whole(ringing + more)})` : "");
    const words = [this.fault ? w.t(this.fault) : this.data && !alarms.length ? w.t("al_none") : "", this.done, more > 0 ? w.t("al_more", { n: more }) : ""];
    text(by("alarm-say"), words.filter(Boolean).join(" "));
    by("alarm-say").hidden = !by("alarm-say").textContent;
    by("alarm-login").hidden = !this.data || this.data.may_act;
    list(by("alarm-rows"), alarms, keyOf, (a) => this.make(a), (row, a) => this.update(row, a));
  }

  make(first) {
    const row = { pill: h("span", { class: "pill" }), what: h("b"), where: h("span"), since: h("span", { class: "v" }), notes: h("span", { class: "notes" }), alarm: first };
    row.ack = h("button", { type: "button", class: "act", onclick: () => this.acknowledge(row) });
    row.quiet = h("button", { type: "button", class: "act", "aria-expanded": "false", onclick: () => this.toggle(row) });
    row.acts = h("span", { class: "acts" }, row.ack, row.quiet);
    row.form = this.form(row);
    row.node = h("article", { class: "row alarm", "data-rule": first.rule, "aria-label": first.rule },
      h("div", { class: "line" }, row.pill, h("span", { class: "who" }, row.what, row.where, row.notes), h("span", { class: "cell" }, h("span", { class: "k" }, w.t("al_since")), row.since), row.acts), row.form);
    return row;
  }

  form(row) {
    const time = h("select", {}, ...TIMES_S.map((s) => h("option", { value: s }, w.span(s))));
    const why = h("input", { type: "text", required: true, maxlength: 200, autocomplete: "off" });
    const send = h("button", { type: "submit", class: "act" }, w.t("al_silence"));
    const form = h("form", { class: "quiet-form", hidden: true, onsubmit: (e) => { e.preventDefault(); this.silence(row, Number(time.value), why.value); } },
      h("label", {}, h("span", { class: "k" }, w.t("al_for")), time), h("label", { class: "wide" }, h("span", { class: "k" }, w.t("al_why")), why), send);
    form.why = why;
    return form;
  }

  update(row, a) {
    row.alarm = a;
    const fires = a.state === "disparando";
    className(row.pill, `pill ${fires ? TONE[a.severity] ?? "" : ""}`);
    text(row.pill, fires ? w.t(`al_${a.severity}`) : w.t("al_cooling"));
    className(row.node, `row alarm ${fires ? TONE[a.severity] ?? "" : ""}`);
    text(row.what, a.text || a.rule);
    text(row.where, [a.rule, [a.plc ?? a.site, a.machine, a.field].filter(Boolean).join(" / ")].filter(Boolean).join(" · "));
    text(row.since, w.span(Math.max(0, (this.now() - a.since) / 1000)));
    const notes = [];
    if (a.confirmado) notes.push(w.t("al_acked", { who: a.confirmado[0], time: w.time(a.confirmado[1]) }));
    if (a.silenciado) notes.push(w.t("al_silenced", { time: w.time(a.silenciado[0]), why: a.silenciado[1] }));
    if (a.sem_medida) notes.push(w.t("al_unmeasured"));
    text(row.notes, notes.join(" · "));
    row.notes.hidden = !notes.length;
    row.acts.hidden = !this.data.may_act;
    row.ack.hidden = !fires || Boolean(a.confirmado);
    text(row.ack, w.t("al_ack"));
    text(row.quiet, w.t(a.silenciado ? "al_unsilence" : "al_silence_open"));
    const label = `${a.rule} ${a.plc ?? a.site ?? ""} ${a.machine ?? ""}`.trim();
    for (const button of [row.ack, row.quiet]) button.setAttribute("aria-label", `${button.textContent}: ${label}`);
  }

  toggle(row) {
    if (row.alarm.silenciado) {
      this.silence(row, 0, "");
      return;
    }
    row.form.hidden = !row.form.hidden;
    row.quiet.setAttribute("aria-expanded", String(!row.form.hidden));
    if (!row.form.hidden) row.form.why.focus();
  }

  acknowledge(row) {
    return this.act("ack", placeOf(row.alarm), w.t("al_did_ack", { rule: row.alarm.rule }));
  }

  async silence(row, seconds, why) {
    const words = w.t(seconds ? "al_did_silence" : "al_did_unsilence", { rule: row.alarm.rule });
    if (await this.act("silence", { ...placeOf(row.alarm), for_s: seconds, why }, words)) {
      row.form.hidden = true;
      row.form.why.value = "";
      row.quiet.setAttribute("aria-expanded", "false");
    }
  }

  async act(verb, body, words) {
    let fine = false;
    try {
      const answer = await fetch(`api/alarms/${verb}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      fine = answer.ok;
      this.done = fine ? words : w.t("al_failed", { text: (await answer.json()).text ?? answer.status });
    } catch {
      this.done = w.t("al_failed", { text: w.t("lost") });
    }
    await this.look();
    this.draw();
    return fine;
  }

  rebuild() {
    empty(by("alarm-rows"));
    this.done = "";
    this.draw();
  }
}
