// Draws the time lines of one clip on a canvas. The data are in the JSON script beside it. No network, no library.
document.querySelectorAll(".tl-root").forEach((root) => {
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const unpack = (text, kind) => new kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const people = data.people.map((p) => ({
    name: p.name,
    time: unpack(p.time, Float32Array),
    valence: p.valence && unpack(p.valence, Int16Array),
    arousal: p.arousal && unpack(p.arousal, Int16Array),
    expression: p.expression && unpack(p.expression, Uint8Array),
    aus: p.aus && unpack(p.aus, Uint8Array),
  }));
  const canvas = root.querySelector("canvas"), pen = canvas.getContext("2d"), read = root.querySelector(".tl-read");
  const select = root.querySelector("select"), key = root.querySelector(".tl-key");
  people.forEach((p, i) => select.add(new Option(p.name, i)));
  if (people.length < 2) select.style.display = "none";
  const first = Math.min(...people.map((p) => p.time[0])), last = Math.max(...people.map((p) => p.time[p.time.length - 1]));
  const end = Math.max(last, first + 0.1), LEFT = 58, CURVE = 170, RIBBON = 34, AU = 15, AXIS = 24, GAP = 10, NONE = -32768;
  let from = first, to = end, cursor = null, drag = null, playing = null;
  const person = () => people[select.selectedIndex < 0 ? 0 : select.selectedIndex];
  const has = { va: !!people[0].valence, expr: !!people[0].expression, au: !!people[0].aus };
  const height = () => (has.va ? CURVE + GAP : 0) + (has.expr ? RIBBON + GAP : 0) + (has.au ? 12 * AU + GAP : 0) + AXIS + 1;
  const entry = (colour, text) => `<span><i style="background:${colour}"></i>${text}</span>`;
  const shade = (v) => { // cividis, interpolated from three points
    const s = [[0, 34, 78], [124, 123, 120], [254, 232, 56]], x = v * 2, i = Math.min(1, Math.floor(x)), f = x - i;
    return `rgb(${s[i].map((c, k) => Math.round(c + (s[i + 1][k] - c) * f)).join()})`;
  };
  const shades = Array.from({ length: 255 }, (_, i) => shade(i / 254));
  const group = (title, entries) => `<div><b>${title}</b>${entries}</div>`;
  key.innerHTML = (has.va ? group("curves", entry(data.valence, "valence") + entry(data.arousal, "arousal")) : "") +
    (has.expr ? group("expression", data.expressions.map(([n, c]) => entry(c, n)).join("")) : "") +
    (has.au ? group("AUs", `<span>0<i class="scale" style="background:linear-gradient(90deg,${shade(0)},${shade(0.5)},${shade(0.999)})"></i>1</span>`) : "");
  const width = () => canvas.clientWidth, plot = () => width() - LEFT - 8;
  const toX = (t) => LEFT + ((t - from) / (to - from)) * plot(), toT = (x) => from + ((x - LEFT) / plot()) * (to - from);
  const find = (time, t) => { // first row at or after t
    let low = 0, high = time.length;
    while (low < high) { const mid = (low + high) >> 1; if (time[mid] < t) low = mid + 1; else high = mid; }
    return low;
  };
  function line(p, values, colour, top) {
    const y = (v) => top + CURVE / 2 - (v / 10000) * (CURVE / 2 - 4);
    const a = Math.max(0, find(p.time, from) - 1), b = Math.min(p.time.length - 1, find(p.time, to));
    pen.strokeStyle = colour; pen.lineWidth = 1.6; pen.beginPath();
    const step = (b - a) / plot() > 4; // many rows per pixel: draw their range
    if (step) {
      for (let x = LEFT; x < LEFT + plot(); x++) {
        let low = Infinity, high = -Infinity;
        for (let i = find(p.time, toT(x)), e = find(p.time, toT(x + 1)); i < e; i++) if (values[i] !== NONE) {
          low = Math.min(low, values[i]); high = Math.max(high, values[i]);
        }
        if (high >= low) { pen.moveTo(x, y(high) - 0.8); pen.lineTo(x, y(low) + 0.8); }
      }
    } else {
      let open = false;
      for (let i = a; i <= b; i++) {
        if (values[i] === NONE) { open = false; continue; }
        if (open) pen.lineTo(toX(p.time[i]), y(values[i])); else { pen.moveTo(toX(p.time[i]) - 0.5, y(values[i])); pen.lineTo(toX(p.time[i]), y(values[i])); }
        open = true;
      }
    }
    pen.stroke();
  }
  function cells(p, paint) { // call `paint` for each pixel column that has a row
    for (let x = LEFT; x < LEFT + plot(); x++) {
      const i = Math.max(0, find(p.time, toT(x + 0.5) + 1e-6) - 1);
      const step = i + 1 < p.time.length ? p.time[i + 1] - p.time[i] : i ? p.time[i] - p.time[i - 1] : 1;
      const t = toT(x + 0.5);
      if (t >= p.time[i] - 1e-6 && t <= p.time[i] + Math.max(step, 1e-3) * 1.01) paint(x, i);
    }
  }
  function frame(top, h) { // an outline around a row, so that gaps are visible
    pen.strokeStyle = "#c9cdd4"; pen.lineWidth = 1; pen.strokeRect(LEFT - 0.5, top - 0.5, plot() + 1, h + 1);
  }
  function draw() {
    const scale = window.devicePixelRatio || 1, w = width(), h = height(), p = person();
    canvas.style.height = h + "px"; canvas.width = w * scale; canvas.height = h * scale;
    pen.setTransform(scale, 0, 0, scale, 0, 0); pen.clearRect(0, 0, w, h);
    pen.font = "12px system-ui, sans-serif"; pen.textBaseline = "middle"; pen.textAlign = "right";
    let top = 1;
    if (has.va) {
      pen.fillStyle = "#f4f5f7"; pen.fillRect(LEFT, top, plot(), CURVE);
      pen.fillStyle = "#5a6068"; pen.strokeStyle = "#c9cdd4"; pen.lineWidth = 1;
      [[1, 4], [0, CURVE / 2], [-1, CURVE - 4]].forEach(([v, y]) => {
        pen.fillText(v > 0 ? "+1" : String(v), LEFT - 6, Math.min(Math.max(top + y, 7), top + CURVE - 7));
        pen.beginPath(); pen.moveTo(LEFT, top + y); pen.lineTo(LEFT + plot(), top + y); pen.stroke();
      });
      pen.fillStyle = "#fff"; // gaps are white
      cells(p, (x, i) => { if (p.valence[i] === NONE) pen.fillRect(x, top, 1, CURVE); });
      pen.save(); pen.beginPath(); pen.rect(LEFT, top, plot(), CURVE); pen.clip();
      line(p, p.valence, data.valence, top); line(p, p.arousal, data.arousal, top); pen.restore();
      frame(top, CURVE); top += CURVE + GAP;
    }
    if (has.expr) {
      pen.fillStyle = "#5a6068"; pen.fillText("expr.", LEFT - 6, top + RIBBON / 2);
      cells(p, (x, i) => { const e = p.expression[i]; if (e < 8) { pen.fillStyle = data.expressions[e][1]; pen.fillRect(x, top, 1, RIBBON); } });
      frame(top, RIBBON); top += RIBBON + GAP;
    }
    if (has.au) {
      pen.fillStyle = "#5a6068"; data.aus.forEach((name, k) => pen.fillText(name, LEFT - 6, top + AU * (k + 0.5)));
      cells(p, (x, i) => { for (let k = 0; k < 12; k++) { const v = p.aus[i * 12 + k]; if (v < 255) { pen.fillStyle = shades[v]; pen.fillRect(x, top + AU * k, 1, AU - 1); } } });
      frame(top, 12 * AU - 1); top += 12 * AU + GAP;
    }
    pen.fillStyle = "#5a6068"; pen.textAlign = "center";
    const raw = (to - from) / Math.max(2, plot() / 90), power = 10 ** Math.floor(Math.log10(raw));
    const tick = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= raw);
    for (let t = Math.ceil(from / tick) * tick; t <= to; t += tick) {
      pen.fillRect(toX(t), top - GAP + 2, 1, 5);
      pen.fillText((tick < 0.1 ? t.toFixed(2) : tick < 1 ? t.toFixed(1) : t.toFixed(0)) + " s", toX(t), top + 6);
    }
    if (drag && Math.abs(drag.x - drag.at) > 3) { pen.fillStyle = "rgba(0,114,178,.18)"; pen.fillRect(Math.min(drag.x, drag.at), 0, Math.abs(drag.x - drag.at), top - GAP); }
    [[playing, "#D55E00"], [cursor, "#1c1e21"]].forEach(([t, colour]) => {
      if (t !== null && t >= from && t <= to) { pen.fillStyle = colour; pen.fillRect(toX(t) - 0.5, 0, 1, top - GAP); }
    });
  }
  function tell() {
    const p = person();
    if (cursor === null) { read.textContent = ""; return; }
    const i = Math.min(p.time.length - 1, Math.max(0, find(p.time, cursor)));
    const j = i && Math.abs(p.time[i - 1] - cursor) < Math.abs(p.time[i] - cursor) ? i - 1 : i;
    let text = `${p.time[j].toFixed(2)} s`;
    const none = (p.valence && p.valence[j] === NONE) || (p.expression && p.expression[j] > 7) || (p.aus && p.aus[j * 12] === 255);
    if (none) text += ": no face";
    else {
      if (p.valence) text += `   valence ${(p.valence[j] / 10000).toFixed(2)}   arousal ${(p.arousal[j] / 10000).toFixed(2)}`;
      if (p.expression) text += `   ${data.expressions[p.expression[j]][0]}`;
      if (p.aus) text += "   " + data.aus.map((n, k) => [n, p.aus[j * 12 + k] / 254]).filter((x) => x[1] >= 0.5).map(([n, v]) => `${n} ${v.toFixed(2)}`).join(" ");
    }
    read.textContent = text;
  }
  let asked = false;
  const later = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(); tell(); }); } };
  function view(a, b) {
    const least = Math.min(0.2, end - first), span = Math.min(Math.max(b - a, least), end - first);
    from = Math.min(Math.max((a + b) / 2 - span / 2, first), end - span); to = from + span; later();
  }
  const zoom = (factor, t) => view(t - (t - from) * factor, t + (to - t) * factor);
  const place = (event) => Math.min(Math.max(event.clientX - canvas.getBoundingClientRect().left, LEFT), LEFT + plot());
  const fingers = new Map();
  canvas.addEventListener("pointerdown", (e) => {
    fingers.set(e.pointerId, place(e)); canvas.setPointerCapture(e.pointerId);
    drag = fingers.size === 1 ? { at: place(e), x: place(e) } : null;
  });
  canvas.addEventListener("pointermove", (e) => {
    cursor = toT(place(e));
    if (fingers.has(e.pointerId)) {
      const before = [...fingers.values()]; fingers.set(e.pointerId, place(e)); const now = [...fingers.values()];
      if (fingers.size === 2) {
        const a = Math.abs(before[0] - before[1]), b = Math.abs(now[0] - now[1]);
        if (a > 8 && b > 8) zoom(a / b, toT((now[0] + now[1]) / 2));
      } else if (drag) drag.x = place(e);
    }
    later();
  });
  const release = (e) => {
    fingers.delete(e.pointerId);
    if (!drag) return;
    const { at, x } = drag; drag = null;
    if (Math.abs(x - at) > 8) view(Math.min(toT(at), toT(x)), Math.max(toT(at), toT(x)));
    else if (window.parent !== window) window.parent.postMessage({ wildaffect: "seek", seconds: toT(x) }, "*");
    later();
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", (e) => { fingers.delete(e.pointerId); drag = null; });
  canvas.addEventListener("pointerleave", () => { cursor = null; later(); });
  canvas.addEventListener("dblclick", () => view(first, end));
  canvas.addEventListener("wheel", (e) => { if (!e.deltaY) return; e.preventDefault(); zoom(e.deltaY > 0 ? 1.25 : 0.8, toT(place(e))); }, { passive: false });
  root.querySelectorAll("button").forEach((b) => b.addEventListener("click", () => {
    const middle = (from + to) / 2, span = to - from;
    ({ in: () => zoom(0.5, middle), out: () => zoom(2, middle), all: () => view(first, end), left: () => view(from - span / 2, to - span / 2), right: () => view(from + span / 2, to + span / 2) })[b.dataset.do]();
  }));
  select.addEventListener("change", later);
  window.addEventListener("resize", later);
  window.addEventListener("message", (e) => { if (e.data && e.data.wildaffect === "playing") { playing = e.data.seconds; later(); } });
  draw();
  // If a page shows the curves in a frame, tell it how high the frame must be.
  const tellHeight = () => window.parent.postMessage({ wildaffect: "height", height: root.getBoundingClientRect().bottom + 16 }, "*");
  if (window.parent !== window) new ResizeObserver(tellHeight).observe(root);
});
