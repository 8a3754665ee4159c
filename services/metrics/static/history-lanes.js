// Under the chart: what is known of each value, states and texts, alarms and events, each a lane.

import { css, DARK, LIGHT } from "./chart.js";
import { t as words } from "./words.js";

const LANE = { line: 10, state: 20, text: 20, alarms: 16, events: 14 };
const PAD = 4;
const LEVEL = { info: "--soft", warning: "--warn", error: "--bad", informacao: "--accent", aviso: "--warn", critica: "--bad" };

export const colour = (i) => (css("color-scheme") === "dark" ? DARK : LIGHT)[i];
export const isLine = (s) => s.kind === "number" || s.kind === "counter";

// What is not known.
export function hatch(draw) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  pen.strokeStyle = css("--bad");
  pen.lineWidth = 1.5;
  pen.beginPath();
  for (const x of [-8, 0, 8]) pen.moveTo(x, 8), pen.lineTo(x + 8, 0);
  pen.stroke();
  return draw.createPattern(tile, "repeat");
}

// range: {begin, end, cursor}, ms; bbox: the chart's, in device pixels; width: in CSS pixels.
export function drawLanes(canvas, data, range, bbox, width) {
  const ratio = devicePixelRatio || 1, left = bbox.left / ratio, wide = bbox.width / ratio;
  const rows = data.series.map((s) => ({ s, high: isLine(s) ? LANE.line : s.kind === "bool" ? LANE.state : LANE.text }));
  const high = rows.reduce((sum, r) => sum + r.high + PAD, 0) + LANE.alarms + LANE.events + 3 * PAD;
  Object.assign(canvas, { width: width * ratio, height: high * ratio });
  const draw = canvas.getContext("2d");
  draw.scale(ratio, ratio);
  draw.font = "11px system-ui";
  draw.textBaseline = "middle";
  // Whole pixels: neighbours leave no seam.
  const x = (ms) => Math.round((left + Math.min(1, Math.max(0, (ms - range.begin) / (range.end - range.begin))) * wide) * ratio) / ratio;
  const bar = (begin, end, y, h) => { const a = x(begin), b = x(end); if (end > range.begin && begin < range.end) draw.fillRect(a, y, Math.max(1, b - a), h); };
  const ink = { hatch: hatch(draw), card: css("--card"), warn: css("--warn"), idle: css("--idle-bg"), text: css("--ink"), soft: css("--soft") };
  let y = PAD;
  for (const { s, high: h } of rows) {
    draw.fillStyle = colour(s.i);
    draw.fillRect(left - 14, y + h / 2 - 5, 10, 10);
    draw.fillStyle = ink.idle;
    draw.fillRect(left, y, wide, h);
    if (isLine(s)) {
      if (s.part) draw.fillStyle = ink.hatch, bar(s.known[0], s.known[1], y, h);
      for (const tone of [ink.card, `${colour(s.i)}99`]) {
        draw.fillStyle = tone;
        for (const [begin, end, part] of s.part ? shares(s, data.step_ms) : [[...s.known, 1]]) bar(begin, end, y + h * (1 - part), h * part);
      }
    } else drawStates(draw, s, data, range, x, y, h, ink);
    if (!s.part || !isLine(s)) {
      for (const tone of [ink.card, ink.hatch]) {
        draw.fillStyle = tone;
        for (const [begin, end] of s.unknown) bar(begin, end, y, h);
      }
    }
    draw.fillStyle = ink.warn;
    for (const [begin, end] of s.doubtful) bar(begin, end, isLine(s) ? y : y + h - 4, isLine(s) ? h : 4);
    y += h + PAD;
  }
  label(draw, words("alarms"), left, y + LANE.alarms / 2, ink.soft);
  draw.fillStyle = ink.idle;
  draw.fillRect(left, y, wide, LANE.alarms);
  for (const a of data.alarms) {
    draw.fillStyle = css(LEVEL[a.severity] ?? "--soft");
    bar(a.begin, a.end ?? data.now, y + 2, LANE.alarms - 4);
  }
  y += LANE.alarms + PAD;
  label(draw, words("h_events"), left, y + LANE.events / 2, ink.soft);
  for (const e of data.events) {
    if (e.ts < range.begin || e.ts > range.end) continue;
    draw.fillStyle = css(LEVEL[e.level] ?? "--soft");
    draw.beginPath();
    draw.moveTo(x(e.ts), y), draw.lineTo(x(e.ts) + 5, y + LANE.events), draw.lineTo(x(e.ts) - 5, y + LANE.events);
    draw.fill();
  }
  if (range.cursor != null && range.cursor >= range.begin && range.cursor <= range.end) {
    draw.strokeStyle = css("--soft");
    draw.setLineDash([3, 3]);
    draw.beginPath();
    draw.moveTo(x(range.cursor), 0), draw.lineTo(x(range.cursor), high);
    draw.stroke();
  }
}

// [begin, end, share of it that is known] of a roll-up; steps of the same share are one.
function shares(s, step) {
  const found = [];
  s.ts.forEach((t, i) => {
    const part = Math.min(1, s.part(i)), end = Math.min(t + step, s.known[1]), last = found.at(-1);
    if (!part || t >= end) return;
    if (last && last[1] === t && Math.abs(last[2] - part) < 0.01) last[1] = end;
    else found.push([t, end, part]);
  });
  return found;
}

function label(draw, word, left, y, ink) {
  draw.fillStyle = ink;
  draw.textAlign = "right";
  draw.fillText(word, left - 4, y, left - 6);
  draw.textAlign = "left";
}

// A state holds until the next; of a roll-up, as much of the height as it was on.
function drawStates(draw, s, data, range, x, y, h, ink) {
  const stop = Math.min(range.end, data.now), tone = colour(s.i);
  for (let i = 0; i < s.ts.length; i++) {
    const v = s.y[i];
    const first = i;
    if (!data.step_ms) while (i + 1 < s.ts.length && s.y[i + 1] === v) i++;
    const end = data.step_ms ? s.ts[i] + data.step_ms : s.ts[i + 1] ?? stop;
    if (v == null || end < range.begin || s.ts[first] > range.end) continue;
    const a = x(s.ts[first]), b = x(Math.min(end, stop));
    draw.fillStyle = tone;
    if (s.kind === "bool") {
      const part = Math.min(1, Math.max(0, Number(v)));
      if (part) draw.fillRect(a, y + h * (1 - part), Math.max(1, b - a), h * part);
      continue;
    }
    draw.globalAlpha = i % 2 ? 0.18 : 0.3;
    draw.fillRect(a, y, Math.max(1, b - a), h);
    draw.globalAlpha = 1;
    if (b - a > 18) {
      draw.save();
      draw.beginPath(), draw.rect(a, y, b - a, h), draw.clip();
      draw.fillStyle = ink.text;
      draw.fillText(String(v), a + 3, y + h / 2);
      draw.restore();
    }
  }
}
