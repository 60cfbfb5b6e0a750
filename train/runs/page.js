"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(data.charts.map((chart) => [chart.id, chart]));
const find = (id) => document.getElementById(id);
const tip = find("tip");
const hidden = new Set();
let smooth = 0.6;
const LEFT = 52, RIGHT = 10, TOP = 8, BOTTOM = 24;
const colour = (run) => `var(--c${run % 8})`;
const dash = (run) => (run < 8 ? "" : run < 16 ? "6 3" : "2 3");
const number = (x) => (x === 0 ? "0" : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(2).replace(/\.?0+e/, "e")
  : String(Number(x.toPrecision(4))));
const steps = (x) => (x >= 1000 ? `${Number((x / 1000).toPrecision(3))}k` : String(Math.round(x)));

/* Each step has samples and noise of its own; a validation always has the same ones, and the learning rate has none. */
const noisy = (id) => (/^(train|speed)\//.test(id) && id !== "train/lr" ? smooth : 0);

/* An exponential mean of the values so far, without the bias of its start. */
function smoothed(points, share) {
  let sum = 0, weight = 0;
  return points.map((point) => {
    sum = share * sum + (1 - share) * point[1];
    weight = share * weight + (1 - share);
    return [point[0], sum / weight];
  });
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + step * 1e-9; x += step) found.push(Math.abs(x) < step * 1e-9 ? 0 : x);
  return found;
}

function logTicks(low, high) {
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) for (const m of [1, 2, 5]) all.push(m * 10 ** e);
  const inside = all.filter((x) => x >= low && x <= high);
  const decades = inside.filter((x) => Math.abs(Math.log10(x) - Math.round(Math.log10(x))) < 1e-9);
  if (inside.length > 7 && decades.length > 1) return decades;
  return inside.length > 2 ? inside : ticks(low, high, 5);
}

/* Where most values lie: one spike does not flatten the rest. */
function range(curves) {
  const all = curves.flatMap((curve) => curve.smooth.map((p) => p[1])).sort((x, y) => x - y);
  const raw = curves.flatMap((curve) => curve.points.map((p) => p[1])).sort((x, y) => x - y);
  const at = (list, share) => list[Math.min(list.length - 1, Math.floor(share * list.length))];
  return [Math.min(all[0], at(raw, 0.01)), Math.max(at(all, 0.995), at(raw, 0.98))];
}

function draw(figure) {
  const chart = byId.get(figure.dataset.chart);
  const curves = chart.curves.map((points, run) => ({ run, points })).filter((c) => c.points.length && !hidden.has(c.run));
  const share = noisy(chart.id);
  for (const curve of curves) curve.smooth = smoothed(curve.points, share);
  figure.querySelector("svg")?.remove();
  const width = figure.clientWidth - 16, height = 210;
  let svg = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${figure.querySelector("figcaption").textContent}">`;
  if (!curves.length) {
    figure.insertAdjacentHTML("beforeend", `${svg}<text class="tick" x="${width / 2}" y="105" text-anchor="middle">nothing shown</text></svg>`);
    figure.onmousemove = null;
    return;
  }
  let [low, high] = range(curves);
  const log = find("log").checked && low > 0 && /loss|error|balance|pixel|lr|grad_norm/.test(chart.id);
  if (!(high > low)) [low, high] = log ? [low * 0.9, high * 1.1] : [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05];
  const scale = log ? Math.log : (x) => x, pad = (scale(high) - scale(low)) * 0.04;
  const [bottom, top] = [scale(low) - pad, scale(high) + pad];
  const first = Math.min(...curves.map((c) => c.points[0][0])), last = Math.max(...curves.map((c) => c.points.at(-1)[0]));
  const x = (s) => LEFT + ((width - LEFT - RIGHT) * (s - first)) / (last - first || 1);
  const y = (v) => {
    const t = log && v <= 0 ? bottom : scale(v);
    return height - BOTTOM - ((height - TOP - BOTTOM) * (t - bottom)) / (top - bottom);
  };
  for (const v of log ? logTicks(low, high) : ticks(low, high, 5))
    svg += `<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${y(v)}" y2="${y(v)}"/><text class="tick" x="${LEFT - 6}" y="${y(v) + 4}" text-anchor="end">${number(v)}</text>`;
  for (const s of last > first ? ticks(first, last, 5) : [first])
    svg += `<text class="tick" x="${x(s)}" y="${height - 7}" text-anchor="middle">${steps(s)}</text>`;
  const clip = `clip-${figure.dataset.chart.replace(/[^\w-]/g, "-")}`;
  svg += `<clipPath id="${clip}"><rect x="${LEFT}" y="${TOP}" width="${width - LEFT - RIGHT}" height="${height - TOP - BOTTOM}"/></clipPath><g clip-path="url(#${clip})">`;
  const path = (list) => list.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join("");
  for (const { run, points } of curves) {
    if (points[0].length > 2) {
      const back = points.map((p) => [p[0], p[2]]).reverse();
      svg += `<path class="band" style="fill:${colour(run)}" d="${path(points.map((p) => [p[0], p[3]]))}${path(back).replace("M", "L")}Z"/>`;
    } else if (share > 0) svg += `<path class="raw" style="stroke:${colour(run)}" d="${path(points)}"/>`;
  }
  for (const { run, smooth: list } of curves)
    svg += list.length > 1 ? `<path class="curve" style="stroke:${colour(run)}" stroke-dasharray="${dash(run)}" d="${path(list)}"/>`
      : `<circle cx="${x(list[0][0])}" cy="${y(list[0][1])}" r="3" style="fill:${colour(run)}"/>`;
  svg += `</g><line class="cross" y1="${TOP}" y2="${height - BOTTOM}" visibility="hidden"/></svg>`;
  figure.insertAdjacentHTML("beforeend", svg);
  figure.onmousemove = (event) => hover(event, figure, curves, (px) => first + ((px - LEFT) * (last - first)) / (width - LEFT - RIGHT), x);
  figure.onmouseleave = () => { tip.hidden = true; figure.querySelector(".cross").setAttribute("visibility", "hidden"); };
}

function nearest(points, step) {
  let low = 0, high = points.length - 1;
  while (low < high) { const middle = (low + high) >> 1; if (points[middle][0] < step) low = middle + 1; else high = middle; }
  return low && step - points[low - 1][0] < points[low][0] - step ? low - 1 : low;
}

function hover(event, figure, curves, stepAt, x) {
  const box = figure.querySelector("svg").getBoundingClientRect();
  const wanted = stepAt(event.clientX - box.left);
  const found = curves.map((c) => ({ ...c, at: nearest(c.points, wanted) }));
  const gap = (c) => Math.abs(c.points[c.at][0] - wanted);
  const step = found.reduce((best, c) => (gap(c) < gap(best) ? c : best));
  const cross = figure.querySelector(".cross"), place = x(step.points[step.at][0]);
  for (const end of ["x1", "x2"]) cross.setAttribute(end, place);
  cross.setAttribute("visibility", "visible");
  tip.textContent = `step ${step.points[step.at][0]}`;
  for (const { run, points, smooth: list, at } of found) {
    const row = document.createElement("div"), mark = document.createElement("i"), value = document.createElement("b");
    mark.style.background = colour(run);
    const off = points[at][0] === step.points[step.at][0] ? "" : ` (step ${points[at][0]})`;
    value.textContent = list[at][1] !== points[at][1] ? `${number(list[at][1])} (${number(points[at][1])})` : number(points[at][1]);
    row.append(mark, data.runs[run] + off, value);
    tip.append(row);
  }
  tip.hidden = false;
  const left = event.clientX + 16, room = window.innerWidth - tip.offsetWidth - 8;
  tip.style.left = `${left > room ? Math.max(event.clientX - tip.offsetWidth - 16, 4) : left}px`;
  tip.style.top = `${Math.min(event.clientY + 12, window.innerHeight - tip.offsetHeight - 8)}px`;
}

function all() {
  find("amount").textContent = smooth.toFixed(2);
  const metric = find("metric")?.value;
  for (const figure of document.querySelectorAll("figure")) {
    figure.hidden = Boolean(figure.dataset.metric) && figure.dataset.metric !== metric;
    if (!figure.hidden) draw(figure);
  }
}

find("smooth").oninput = (event) => { smooth = Number(event.target.value); all(); };
find("log").onchange = all;
find("metric")?.addEventListener("change", all);
for (const box of document.querySelectorAll("[data-run]"))
  box.onchange = () => { hidden[box.checked ? "delete" : "add"](Number(box.dataset.run)); all(); };
let wait;
window.addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(all, 120); });
all();
