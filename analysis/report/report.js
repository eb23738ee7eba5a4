"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  for (const button of document.querySelectorAll("button[data-copy]")) {
    const source = document.getElementById(button.dataset.copy);
    button.hidden = false;
    button.addEventListener("click", () => {
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      const copied = document.execCommand && document.execCommand("copy");
      button.textContent = copied ? "copied" : "selected";
    });
  }

  window.raftbedPlots = function () {
    const ink = colour("ink"), line = colour("line");
    for (const figure of read("plot-data")) {
      const layout = figure.layout;
      layout.font = { family: "system-ui, sans-serif", size: 12, color: ink };
      for (const axis of [layout.xaxis, layout.yaxis]) { axis.gridcolor = line; axis.linecolor = line; }
      Plotly.newPlot("plot-" + figure.id, figure.data, layout, 
        // Nothing of a run leaves the machine: no button that uploads.
        { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d"] });
    }
  };

  const canvas = document.getElementById("canvas");
  if (!canvas) return;
  const data = read("timeline-data");
  const tip = document.getElementById("tip");
  const box = document.getElementById("canvas-box");
  const context = canvas.getContext("2d");
  const LEFT = 74, TOP = 26, LANE = Math.max(9, Math.min(22, 420 / Math.max(1, data.lanes))), GAP = 14, NODE = 16;
  const clientsEnd = TOP + data.lanes * LANE;
  const height = clientsEnd + GAP + data.nodes.length * NODE + 10;
  const NAMES = ["ok", "failed", "unknown"], KINDS = ["ok", "fail", "info"];
  const lanes = Array.from({ length: data.lanes }, () => []);
  for (const operation of data.operations) lanes[operation[0]].push(operation);
  const pad = (data.end - data.begin) * 0.01;
  const full = [data.begin - pad, data.end + pad];
  let view = full.slice(), width = 0, waiting = false;

  // The first look at a violation is the violation.
  const marked = data.operations.filter((operation) => operation[8]);
  if (marked.length) {
    const from = Math.min(...marked.map((m) => m[1])), to = Math.max(...marked.map((m) => (m[2] === null ? m[1] : m[2])));
    const margin = Math.max(0.05, (to - from) * 0.5);
    view = [Math.max(full[0], from - margin), Math.min(full[1], to + margin)];
  }

  const x = (time) => LEFT + (time - view[0]) / (view[1] - view[0]) * (width - LEFT);
  const timeAt = (pixel) => view[0] + (pixel - LEFT) / (width - LEFT) * (view[1] - view[0]);

  function draw() {
    waiting = false;
    const ratio = window.devicePixelRatio || 1;
    width = box.clientWidth;
    canvas.width = width * ratio; canvas.height = height * ratio; canvas.style.height = height + "px";
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = { ok: colour("ok"), fail: colour("fail"), info: colour("info"), ink: colour("ink"), soft: colour("soft"),
      line: colour("line"), panel: colour("panel"), partition: colour("partition"), kill: colour("kill"), invalid: colour("invalid") };
    context.save();
    context.beginPath(); context.rect(LEFT, 0, width - LEFT, height); context.clip();
    for (const fault of data.faults) {
      const from = x(fault.begin), to = x(fault.end === null ? full[1] : fault.end);
      context.fillStyle = style[fault.kind] || style.partition;
      context.globalAlpha = 0.13; context.fillRect(from, TOP, Math.max(1, to - from), clientsEnd - TOP);
      context.globalAlpha = 0.75;
      for (const node of fault.nodes) {
        const row = data.nodes.indexOf(node);
        if (row >= 0) context.fillRect(from, clientsEnd + GAP + row * NODE + 3, Math.max(2, to - from), NODE - 6);
      }
      context.globalAlpha = 1;
    }
    ticks(style);
    for (let lane = 0; lane < lanes.length; lane++) for (const operation of lanes[lane]) bar(operation, lane, style);
    context.restore();
    context.font = "12px system-ui, sans-serif"; context.textBaseline = "middle"; context.textAlign = "left"; context.fillStyle = style.soft;
    const every = LANE < 14 ? 2 : 1;
    for (let lane = 0; lane < data.lanes; lane += every) context.fillText("client " + lane, 8, TOP + lane * LANE + LANE / 2);
    data.nodes.forEach((node, row) => context.fillText(node, 8, clientsEnd + GAP + row * NODE + NODE / 2));
  }

  function ticks(style) {
    const span = view[1] - view[0];
    const power = Math.pow(10, Math.floor(Math.log10(span / 8)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => span / n <= 10) || power * 10;
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    context.strokeStyle = style.line; context.fillStyle = style.soft; context.lineWidth = 1;
    context.font = "11px system-ui, sans-serif"; context.textAlign = "center"; context.textBaseline = "middle";
    for (let tick = Math.ceil(view[0] / step) * step; tick <= view[1]; tick += step) {
      const at = Math.round(x(tick)) + 0.5;
      context.beginPath(); context.moveTo(at, TOP - 6); context.lineTo(at, height - 6); context.stroke();
      context.fillText(tick.toFixed(digits) + " s", at, 11);
    }
  }

  function bar(operation, lane, style) {
    const open = operation[2] === null || operation[3] === 2;
    const from = x(operation[1]), to = operation[2] === null ? width : x(operation[2]);
    if (to < LEFT || from > width) return;
    const y = TOP + lane * LANE + 1, tall = LANE - 3, wide = Math.max(1.5, to - from), kind = KINDS[operation[3]];
    if (operation[3] === 0) {
      context.fillStyle = style.ok; context.fillRect(from, y, wide, tall);
    } else {
      context.strokeStyle = style[kind]; context.lineWidth = 1.5; context.setLineDash(operation[3] === 1 ? [4, 2] : [2, 2]);
      context.strokeRect(from + 0.5, y + 0.5, Math.max(2, wide - 1), tall - 1); context.setLineDash([]);
      if (operation[3] === 1) {
        const middle = from + Math.min(wide, 8) / 2;
        context.beginPath(); context.moveTo(middle - 3, y + tall / 2 - 3); context.lineTo(middle + 3, y + tall / 2 + 3);
        context.moveTo(middle + 3, y + tall / 2 - 3); context.lineTo(middle - 3, y + tall / 2 + 3); context.stroke();
      }
    }
    if (open) {
      // Unknown: it may take effect at any later time, so that a thin line runs on.
      context.globalAlpha = 0.35; context.strokeStyle = style.info; context.lineWidth = 1;
      context.beginPath(); context.moveTo(to, y + tall / 2); context.lineTo(Math.min(width, to + 60), y + tall / 2); context.stroke(); context.globalAlpha = 1;
    }
    if (operation[8]) { context.strokeStyle = style.invalid; context.lineWidth = 2.5; context.strokeRect(from - 2, y - 1, wide + 4, tall + 2); }
    if (LANE >= 14 && wide > 60) {
      context.save(); context.beginPath(); context.rect(from, y, wide, tall); context.clip();
      context.font = "11px system-ui, sans-serif"; context.textAlign = "left"; context.textBaseline = "middle";
      context.fillStyle = operation[3] === 0 ? style.panel : style.ink;
      context.fillText(operation[4], Math.max(from, LEFT) + 10, y + tall / 2 + 0.5); context.restore();
    }
  }

  function schedule() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }
  function zoom(factor, centre) {
    const from = centre - (centre - view[0]) * factor, to = centre + (view[1] - centre) * factor;
    if (to - from < 1e-5) return;
    view = [Math.max(full[0], from), Math.min(full[1], to)];
    schedule();
  }
  function move(by) {
    const clamped = Math.min(full[1] - view[1], Math.max(full[0] - view[0], by));
    view = [view[0] + clamped, view[1] + clamped];
    schedule();
  }
  function at(event) { const area = canvas.getBoundingClientRect(); return [event.clientX - area.left, event.clientY - area.top]; }

  // The plain wheel scrolls the page, which a reader does more often than zooming; Ctrl is also what a pinch sends.
  canvas.addEventListener("wheel", (event) => { if (!event.ctrlKey && !event.metaKey) return; event.preventDefault(); zoom(Math.exp(event.deltaY * 0.0015), timeAt(at(event)[0])); }, { passive: false });
  canvas.addEventListener("dblclick", () => { view = full.slice(); schedule(); });
  document.getElementById("zoom").hidden = false;
  for (const button of document.querySelectorAll("button[data-zoom]")) button.addEventListener("click", () => {
    if (button.dataset.zoom === "all") { view = full.slice(); schedule(); } else zoom(Number(button.dataset.zoom), (view[0] + view[1]) / 2);
  });
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { drag = at(event)[0]; canvas.setPointerCapture(event.pointerId); canvas.classList.add("moving"); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; canvas.classList.remove("moving"); });
  canvas.addEventListener("pointermove", (event) => {
    const [px, py] = at(event);
    if (drag !== null) { move((drag - px) / (width - LEFT) * (view[1] - view[0])); drag = px; tip.hidden = true; return; }
    const found = under(px, py);
    tip.hidden = !found;
    if (!found) return;
    tip.textContent = found;
    tip.style.left = Math.min(px + 14, width - 350) + "px";
    tip.style.top = (py + 16) + "px";
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  box.addEventListener("keydown", (event) => {
    const span = view[1] - view[0], middle = (view[0] + view[1]) / 2;
    if (event.key === "ArrowLeft") move(-span / 8); else if (event.key === "ArrowRight") move(span / 8);
    else if (event.key === "+" || event.key === "=") zoom(0.7, middle); else if (event.key === "-") zoom(1.4, middle);
    else if (event.key === "0") { view = full.slice(); schedule(); } else return;
    event.preventDefault();
  });

  function under(px, py) {
    const time = timeAt(px), slack = 3 / (width - LEFT) * (view[1] - view[0]);
    const lane = Math.floor((py - TOP) / LANE);
    if (lane >= 0 && lane < data.lanes) {
      for (const o of lanes[lane]) {
        const end = o[2] === null ? Infinity : o[2];
        if (time >= o[1] - slack && time <= end + slack) {
          const took = o[2] === null ? "no answer" : ((o[2] - o[1]) * 1000).toFixed(1) + " ms";
          return o[4] + "\n" + NAMES[o[3]] + ", process " + o[5] + (o[6] ? ", " + o[6] : "") + "\nfrom " + o[1].toFixed(6) + " s, " + took + (o[7] ? "\n" + o[7] : "");
        }
      }
    }
    const lines = data.faults.filter((f) => time >= f.begin && time <= (f.end === null ? Infinity : f.end)).map((f) => f.label);
    return lines.length ? lines.join("\n") : null;
  }
  addEventListener("resize", schedule);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", schedule);
  draw();
})();
