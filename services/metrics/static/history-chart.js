// The chart of the history page: lines in a uPlot, and lanes of quality, states, alarms and events
// under it, on one time axis. It knows nothing of the page and asks for nothing.

import { css } from "./chart.js";
import { colour, drawLanes, hatch, isLine } from "./history-lanes.js";

export const MAX_SERIES = 8;
const HEIGHT = 300, SIDE = 58, RIGHT = 18;
const MIN_SPAN_MS = 1000, MAX_SPAN_MS = 5 * 366 * 86400e3;

// The last index with times[i] <= t; -1 where there is none.
export function before(times, t) {
  let low = 0, high = times.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (times[mid] <= t) low = mid + 1;
    else high = mid;
  }
  return low - 1;
}

export class HistoryChart {
  // ranged(begin, end, done): the person moves the time axis; done: and has let go.
  // pointed(ms or null): where the cursor is.
  constructor(box, locale, ranged, pointed) {
    Object.assign(this, { box, locale, ranged, pointed, data: null, cursor: null });
    this.lanes = document.createElement("canvas");
    this.lanes.className = "lanes";
    this.lanes.setAttribute("aria-hidden", "true");
    this.clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    this.fine = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
    this.finest = new Intl.DateTimeFormat(locale, { minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
    this.day = new Intl.DateTimeFormat(locale, { day: "2-digit", month: "2-digit" });
    this.number = new Intl.NumberFormat(locale, { maximumFractionDigits: 6 });
    const move = (step) => this.point(step);
    box.onkeydown = (e) => {
      const span = this.end - this.begin;
      const act = {
        ArrowLeft: () => (e.shiftKey ? this.pan(-span / 2) : move(-1)),
        ArrowRight: () => (e.shiftKey ? this.pan(span / 2) : move(1)),
        "+": () => this.zoom(0.5), "-": () => this.zoom(2),
      }[e.key];
      if (!act || !this.plot || e.ctrlKey || e.metaKey || e.altKey) return;
      e.preventDefault();
      act();
    };
  }

  // data: {begin, end, step_ms, now, series, alarms, events}; times in ms.
  show(data) {
    this.data = data;
    [this.begin, this.end] = [data.begin, data.end];
    const lines = data.series.filter(isLine);
    const tables = lines.map((s) => (s.lo ? [s.x, s.y, s.lo, s.hi] : [s.x, s.drawn ?? s.y]));
    // Two points that are never there, so that an axis stands also where no line does.
    // A line breaks from where nothing is known (2: NULL_EXPAND), whatever the others have there.
    const modes = [[1, 1], ...tables.map((t) => t.map(() => 2))];
    const joined = uPlot.join([[[data.begin, data.end], [null, null]], ...tables], modes);
    const shape = JSON.stringify([lines.map((s) => [s.key, s.i, Boolean(s.lo), Boolean(s.drawn), s.unit]), css("color-scheme")]);
    if (this.plot && this.shape === shape) {
      this.plot.batch(() => {
        this.plot.setData(joined, false);
        this.plot.setScale("x", { min: this.begin, max: this.end });
      });
    } else {
      this.shape = shape;
      this.build(lines, joined);
    }
    this.drawLanes();
  }

  build(lines, joined) {
    this.plot?.destroy();
    const units = [...new Set(lines.map((s) => s.unit || ""))];
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const series = [{}, { show: false, scale: "none" }];
    const bands = [];
    for (const s of lines) {
      const scale = `y${units.indexOf(s.unit || "")}`, stroke = colour(s.i);
      const paths = s.drawn ? uPlot.paths.stepped({ align: 1 }) : undefined;
      series.push({ scale, stroke, width: 2, points: { show: false }, paths });
      if (s.lo) {
        const edge = { scale, stroke: "transparent", width: 0, points: { show: false } };
        series.push({ ...edge }, { ...edge });
        bands.push({ series: [series.length - 1, series.length - 2], fill: `${stroke}33` });
      }
    }
    const scales = { x: { time: true, range: () => [this.begin, this.end] }, none: { auto: false, range: [0, 1] } };
    // Without a value in sight an axis stays where it is: else the chart would move under a finger.
    for (const i of units.keys()) scales[`y${i}`] = { range: (_, min, max) => (min == null ? [0, 1] : uPlot.rangeNum(min, max, 0.1, true)) };
    const yAxes = (units.length ? units : [""]).slice(0, 2).map((unit, i) => ({
      ...axis, scale: units.length ? `y${i}` : "none", side: i ? 1 : 3, size: SIDE, grid: { ...axis.grid, show: !i }, show: units.length > 0,
      values: (_, ticks) => ticks.map((v) => this.number.format(v)), label: unit || undefined, labelSize: unit ? 16 : 0, labelFont: "12px system-ui", labelGap: 0,
    }));
    this.plot = new uPlot({
      ms: 1, width: this.width(), height: HEIGHT, legend: { show: false },
      padding: [10, units.length > 1 ? 0 : RIGHT, 0, units.length ? 0 : SIDE],
      scales, series, bands,
      axes: [{ ...axis, space: 74, size: 40, values: (_, ticks, __, ___, step) => this.times(ticks, step) }, ...yAxes],
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      hooks: {
        drawClear: [(u) => this.drawUnknown(u)],
        setCursor: [(u) => this.moved(u)],
        setSelect: [(u) => this.selected(u)],
        draw: [() => this.drawLanes()],
      },
    }, joined, this.box);
    this.box.append(this.lanes);
    this.touch(this.plot.over);
  }

  width() {
    return Math.max(240, this.box.clientWidth);
  }

  resize() {
    this.plot?.setSize({ width: this.width(), height: HEIGHT });
  }

  // How many points there is room for.
  get room() {
    return Math.min(2000, this.width());
  }

  times(ticks, step) {
    let day = "";
    return ticks.map((ms) => {
      const at = this.day.format(ms);
      if (step >= 86400e3) return at;
      const clock = (step >= 60e3 ? this.clock : step >= 1000 ? this.fine : this.finest).format(ms);
      const said = at === day ? clock : `${clock}\n${at}`;
      day = at;
      return said;
    });
  }

  // -- what is not known, behind the lines; and the lanes ---------------------------------------

  drawUnknown(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.globalAlpha = 0.16;
    ctx.fillStyle = hatch(ctx);
    for (const s of this.data.series) {
      if (!isLine(s)) continue;
      for (const [begin, end] of s.unknown) {
        const x0 = Math.max(bbox.left, u.valToPos(begin, "x", true)), x1 = Math.min(bbox.left + bbox.width, u.valToPos(end, "x", true));
        if (x1 > x0) ctx.fillRect(x0, bbox.top, Math.max(1, x1 - x0), bbox.height);
      }
    }
    ctx.restore();
  }

  drawLanes() {
    if (this.plot?.bbox) drawLanes(this.lanes, this.data, this, this.plot.bbox, this.width());
  }

  // -- moving -----------------------------------------------------------------------------------

  moved(u) {
    if (this.setting) return;
    const { left } = u.cursor;
    this.cursor = left == null || left < 0 ? null : u.posToVal(left, "x");
    this.tell();
  }

  tell() {
    this.pointed(this.cursor);
    this.due ||= requestAnimationFrame(() => { this.due = 0; this.drawLanes(); });
  }

  // By keyboard: to the next value of any line.
  point(step) {
    const all = [...new Set(this.data.series.flatMap((s) => s.ts))].filter((t) => t >= this.begin && t <= this.end).sort((a, b) => a - b);
    if (!all.length) return;
    const from = this.cursor == null ? (step > 0 ? -1 : all.length) : before(all, this.cursor);
    this.cursor = all[Math.min(all.length - 1, Math.max(0, from + step))];
    this.setting = true;
    this.plot.setCursor({ left: this.plot.valToPos(this.cursor, "x"), top: 10 });
    this.setting = false;
    this.tell();
  }

  selected(u) {
    const { left, width } = u.select;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    if (width < 6) return;
    this.go(u.posToVal(left, "x"), u.posToVal(left + width, "x"), true);
  }

  pan(by, done = true) {
    this.go(this.begin + by, this.end + by, done);
  }

  zoom(factor, at = this.cursor ?? (this.begin + this.end) / 2, done = true) {
    this.go(at - (at - this.begin) * factor, at + (this.end - at) * factor, done);
  }

  go(begin, end, done) {
    const span = Math.min(MAX_SPAN_MS, Math.max(MIN_SPAN_MS, end - begin)), middle = (begin + end) / 2;
    [this.begin, this.end] = [Math.round(middle - span / 2), Math.round(middle + span / 2)];
    this.plot?.setScale("x", { min: this.begin, max: this.end });
    this.ranged(this.begin, this.end, done);
  }

  // One finger moves the axis, two stretch it, a tap points; up and down is the page's. With ctrl
  // the wheel zooms (a touchpad's pinch is that), with shift it moves; else it is the page's too.
  touch(over) {
    const fingers = new Map();
    const x = (e) => e.clientX - over.getBoundingClientRect().left;
    let held = null;
    const hold = () => {
      const at = [...fingers.values()].sort((a, b) => a - b);
      held = at.length ? { at, begin: this.begin, end: this.end } : null;
    };
    over.addEventListener("pointerdown", (e) => {
      if (e.pointerType === "mouse") return;
      fingers.set(e.pointerId, x(e));
      over.setPointerCapture(e.pointerId);
      hold();
    });
    over.addEventListener("pointermove", (e) => {
      if (!fingers.has(e.pointerId)) return;
      fingers.set(e.pointerId, x(e));
      const wide = over.clientWidth, span = held.end - held.begin;
      const at = [...fingers.values()].sort((a, b) => a - b);
      if (at.length === 1) {
        const by = ((held.at[0] - at[0]) / wide) * span;
        if (Math.abs(held.at[0] - at[0]) > 8 || this.moving) this.moving = true, this.go(held.begin + by, held.end + by, false);
      } else {
        const first = held.begin + (held.at[0] / wide) * span, last = held.begin + (held.at.at(-1) / wide) * span;
        const perPx = (last - first) / Math.max(10, at.at(-1) - at[0]);
        this.moving = true;
        this.go(first - at[0] * perPx, first + (wide - at[0]) * perPx, false);
      }
    });
    const up = (e) => {
      if (!fingers.delete(e.pointerId)) return;
      if (!fingers.size) {
        if (this.moving) this.go(this.begin, this.end, true);
        else if (e.type === "pointerup") this.plot.setCursor({ left: x(e), top: 10 });
        this.moving = false;
      }
      hold();
    };
    for (const name of ["pointerup", "pointercancel"]) over.addEventListener(name, up);
    over.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.shiftKey) return;
      e.preventDefault();
      const by = e.deltaY || e.deltaX;
      if (e.ctrlKey) this.zoom(Math.exp(Math.max(-1, Math.min(1, by / 240))), this.plot.posToVal(x(e), "x"), true);
      else this.pan(((this.end - this.begin) * by) / 800, true);
    }, { passive: false });
  }

  // A picture of it, with a title and a legend.
  picture(title, names) {
    const ratio = devicePixelRatio || 1, chart = this.plot.ctx.canvas;
    const head = 30, foot = 20 * names.length + 10;
    const sheet = document.createElement("canvas");
    sheet.width = chart.width;
    sheet.height = chart.height + this.lanes.height + (head + foot) * ratio;
    const draw = sheet.getContext("2d");
    draw.fillStyle = css("--card");
    draw.fillRect(0, 0, sheet.width, sheet.height);
    draw.drawImage(chart, 0, head * ratio);
    draw.drawImage(this.lanes, 0, head * ratio + chart.height);
    draw.scale(ratio, ratio);
    draw.fillStyle = css("--ink");
    draw.font = "600 14px system-ui";
    draw.fillText(title, 10, 20);
    draw.font = "12px system-ui";
    let y = head + (chart.height + this.lanes.height) / ratio + 14;
    for (const [name, i] of names) {
      draw.fillStyle = colour(i);
      draw.fillRect(10, y - 9, 10, 10);
      draw.fillStyle = css("--ink");
      draw.fillText(name, 26, y);
      y += 20;
    }
    return new Promise((done) => sheet.toBlob(done, "image/png"));
  }

  close() {
    cancelAnimationFrame(this.due);
    this.plot?.destroy();
    this.plot = null;
    this.lanes.remove();
  }
}
