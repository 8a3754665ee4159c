import { t as words } from "./words.js";

// The small latency line of a PLC, and the trend of a field (uPlot).

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function spark(canvas, points) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const draw = canvas.getContext("2d");
  draw.scale(ratio, ratio);
  draw.fillStyle = css("--line");
  draw.fillRect(0, height - 1, width, 1);
  const known = points.filter((v) => v != null);
  if (!known.length) return;
  const top = Math.max(...known) * 1.15 || 1;
  const step = width / 180;
  const x0 = width - points.length * step;
  draw.strokeStyle = css("--accent");
  draw.lineWidth = 1.5;
  draw.lineJoin = "round";
  draw.beginPath();
  let down = false;
  points.forEach((v, i) => {
    // A break in the line where the PLC was not read.
    if (v == null) return void (down = false);
    const x = x0 + i * step, y = height - 2 - (v / top) * (height - 4);
    if (down) draw.lineTo(x, y);
    else draw.moveTo(x, y), draw.lineTo(x + 0.5, y);
    down = true;
  });
  draw.stroke();
}

const WINDOW_S = 900;
const MAX_LINES = 8;
export const LIGHT = ["#1f5fa8", "#a8471f", "#17704a", "#7a3fa0", "#875000", "#0a7080", "#b3266b", "#52606d"];
export const DARK = ["#7db7f5", "#f5a27d", "#5bd3a0", "#cfa0f0", "#f1b65c", "#5fd0e0", "#f58fc0", "#9fb0bc"];

export class Trend {
  // machines: names, or [""]; the history comes from the server, the rest from the stream.
  constructor(box, plc, group, machines, field, locale, scanS) {
    Object.assign(this, { box, plc, group, field, locale, breakS: Math.max(15, 3 * scanS) });
    this.machines = machines.slice(0, MAX_LINES);
    this.points = new Map(this.machines.map((m) => [m, new Map()]));
    this.load();
  }

  async load() {
    await Promise.all(this.machines.map(async (machine) => {
      const query = new URLSearchParams({ plc: this.plc, group: this.group, machine, field: this.field });
      try {
        const answer = await (await fetch(`api/trend?${query}`)).json();
        const points = this.points.get(machine);
        answer.ts?.forEach((ts, i) => points.set(Math.round(ts / 1000), answer.values[i]));
      } catch { /* away: the stream says so, and loads again when it is back */ }
    }));
    this.draw();
  }

  add(machine, tsMs, value) {
    const points = this.points.get(machine);
    if (!points || (typeof value !== "number" && typeof value !== "boolean")) return;
    this.stepped ||= typeof value === "boolean";
    points.set(Math.round(tsMs / 1000), Number(value));
    // At most one drawing per second, however many machines speak.
    if (!this.due) this.due = setTimeout(() => { this.due = 0; this.draw(); }, 1000);
  }

  draw() {
    if (!this.box.isConnected) return;
    // uPlot draws through what is undefined (another machine's second) and breaks at null.
    const stamps = new Set();
    const lines = [];
    for (const points of this.points.values()) {
      const last = Math.max(...points.keys());
      const line = new Map();
      let before;
      for (const ts of [...points.keys()].sort((a, b) => a - b)) {
        if (ts < last - WINDOW_S) {
          points.delete(ts);
          continue;
        }
        if (before && ts - before > this.breakS) line.set(before + 1, null);
        line.set((before = ts), points.get(ts));
      }
      for (const ts of line.keys()) stamps.add(ts);
      lines.push(line);
    }
    const xs = [...stamps].sort((a, b) => a - b);
    this.box.dataset.points = xs.length;
    if (xs.length < 2) return;
    const data = [xs, ...lines.map((line) => xs.map((x) => line.get(x)))];
    if (this.chart) {
      this.chart.setData(data);
      this.showLast();
      return;
    }
    this.box.querySelector("p").textContent = this.box.dataset.title;
    const dark = css("color-scheme") === "dark";
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const clock = new Intl.DateTimeFormat(this.locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
    const number = new Intl.NumberFormat(this.locale, { maximumFractionDigits: 4 });
    this.chart = new uPlot({
      width: Math.max(240, this.box.clientWidth),
      height: 190,
      legend: { live: true },
      cursor: { y: false },
      padding: [10, 28, 0, 0],
      hooks: { ready: [() => this.showLast()] },
      scales: { x: { range: (_, min, max) => [Math.max(min, max - WINDOW_S), max] } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((v) => clock.format(v * 1000)), space: 90, incrs: [5, 10, 15, 30, 60, 120, 300] },
        { ...axis, values: (_, ticks) => ticks.map((v) => number.format(v)), size: 62 },
      ],
      series: [
        { label: words("t_time"), value: (_, v) => (v == null ? "–" : clock.format(v * 1000)) },
        ...this.machines.map((m, i) => ({
          label: m || this.field,
          stroke: (dark ? DARK : LIGHT)[i],
          width: 2,
          points: { show: false },
          paths: this.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
          value: (_, v) => (v == null ? "–" : number.format(v)),
        })),
      ],
    }, data, this.box);
  }

  // Without a pointer on it the legend says the latest.
  showLast() {
    if (this.chart?.cursor.left < 0) this.chart.setLegend({ idx: this.chart.data[0].length - 1 });
  }

  resize() {
    this.chart?.setSize({ width: Math.max(240, this.box.clientWidth), height: 190 });
  }

  // Colours and words are drawn in: a change of either begins anew.
  close() {
    clearTimeout(this.due);
    this.chart?.destroy();
  }
}
