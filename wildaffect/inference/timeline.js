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
    active: p.active && unpack(p.active, Uint16Array),
  }));
  const canvas = root.querySelector("canvas"), pen = canvas.getContext("2d"), read = root.querySelector(".tl-read");
  const select = root.querySelector("select"), key = root.querySelector(".tl-key");
  people.forEach((p, i) => select.add(new Option(p.name, i)));
  if (people.length < 2) select.style.display = "none";
  const first = Math.min(...people.map((p) => p.time[0])), last = Math.max(...people.map((p) => p.time[p.time.length - 1]));
  const end = Math.max(last, first + 0.1), LEFT = 58, CURVE = 170, RIBBON = 34, AU = 15, AXIS = 24, GAP = 10, NONE = -32768;
  const HINT = "Point at the curves to read values, or select them and use the arrow keys. Drag to select a section. Zoom with Ctrl and the wheel, or with two fingers.";
  let from = first, to = end, cursor = null, drag = null, playing = null, colour = {};
  const person = () => people[select.selectedIndex < 0 ? 0 : select.selectedIndex];
  const has = { va: !!people[0].valence, expr: !!people[0].expression, au: !!people[0].aus };
  const height = () => (has.va ? CURVE + GAP : 0) + (has.expr ? RIBBON + GAP : 0) + (has.au ? data.aus.length * AU + GAP : 0) + AXIS + 1;
  const entry = (colour, text) => `<span><i style="background:${colour}"></i>${text}</span>`;
  const shade = (v) => { // cividis, interpolated from three points
    const s = [[0, 34, 78], [124, 123, 120], [254, 232, 56]], x = v * 2, i = Math.min(1, Math.floor(x)), f = x - i;
    return `rgb(${s[i].map((c, k) => Math.round(c + (s[i + 1][k] - c) * f)).join()})`;
  };
  const shades = Array.from({ length: 255 }, (_, i) => shade(i / 254));
  const none = `<span><i class="none"></i>no face</span>`;
  const group = (title, entries) => `<div><b>${title}</b>${entries}</div>`;
  key.innerHTML = (has.va ? group("curves", entry(data.valence, "valence") + entry(data.arousal, "arousal") + none) : "") +
    (has.expr ? group("expression", data.expressions.map(([n, c]) => entry(c, n)).join("") + (has.va ? "" : none)) : "") +
    (has.au ? group("AUs", `<span>0<i class="scale" style="background:linear-gradient(90deg,${shade(0)},${shade(0.5)},${shade(0.999)})"></i>1</span><span><i class="active"></i>reaches the threshold</span>` + (has.va || has.expr ? "" : none)) : "");
  const width = () => canvas.clientWidth, plot = () => width() - LEFT - 8;
  const toX = (t) => LEFT + ((t - from) / (to - from)) * plot(), toT = (x) => from + ((x - LEFT) / plot()) * (to - from);
  const find = (time, t) => { // first row at or after t
    let low = 0, high = time.length;
    while (low < high) { const mid = (low + high) >> 1; if (time[mid] < t) low = mid + 1; else high = mid; }
    return low;
  };
  const rowAt = (p, t) => { // the row that is on the screen at a time, or -1 if this person has none
    const i = find(p.time, t + 1e-6) - 1;
    if (i < 0) return -1;
    const step = i + 1 < p.time.length ? p.time[i + 1] - p.time[i] : i ? p.time[i] - p.time[i - 1] : 1;
    return t <= p.time[i] + Math.max(step, 1e-3) * 1.01 ? i : -1;
  };
  const faceIn = (p, i) => i >= 0 && (p.valence ? p.valence[i] !== NONE : p.expression ? p.expression[i] < 8 : p.aus[i * data.aus.length] < 255);
  function line(p, values, ink, top) {
    const y = (v) => top + CURVE / 2 - (v / 10000) * (CURVE / 2 - 4);
    const a = Math.max(0, find(p.time, from) - 1), b = Math.min(p.time.length - 1, find(p.time, to));
    pen.strokeStyle = ink; pen.lineWidth = 1.6; pen.beginPath();
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
  function cells(p, top, h, paint) { // hatch a panel, and call `paint` for each pixel column with a face
    pen.fillStyle = colour.back; pen.fillRect(LEFT, top, plot(), h);
    pen.save(); pen.beginPath(); pen.rect(LEFT, top, plot(), h); pen.clip();
    pen.strokeStyle = colour.line; pen.lineWidth = 1; pen.beginPath();
    for (let x = LEFT - h; x < LEFT + plot(); x += 6) { pen.moveTo(x, top + h); pen.lineTo(x + h, top); }
    pen.stroke(); pen.restore();
    for (let x = LEFT; x < LEFT + plot(); x++) { const i = rowAt(p, toT(x + 0.5)); if (faceIn(p, i)) paint(x, i); }
    pen.strokeStyle = colour.line; pen.strokeRect(LEFT - 0.5, top - 0.5, plot() + 1, h + 1);
  }
  function draw() {
    const scale = window.devicePixelRatio || 1, w = width(), h = height(), p = person();
    canvas.style.height = h + "px"; canvas.width = w * scale; canvas.height = h * scale;
    pen.setTransform(scale, 0, 0, scale, 0, 0); pen.clearRect(0, 0, w, h);
    const style = getComputedStyle(root);
    ["ink", "soft", "line", "back", "paper"].forEach((name) => { colour[name] = style.getPropertyValue("--" + name); });
    pen.font = "12px system-ui, sans-serif"; pen.textBaseline = "middle"; pen.textAlign = "right";
    let top = 1;
    if (has.va) {
      cells(p, top, CURVE, (x) => { pen.fillStyle = colour.paper; pen.fillRect(x, top, 1, CURVE); });
      pen.fillStyle = colour.soft; pen.strokeStyle = colour.line; pen.lineWidth = 1;
      [[1, 4], [0, CURVE / 2], [-1, CURVE - 4]].forEach(([v, y]) => {
        pen.fillText(v > 0 ? "+1" : String(v), LEFT - 6, Math.min(Math.max(top + y, 7), top + CURVE - 7));
        pen.beginPath(); pen.moveTo(LEFT, top + y); pen.lineTo(LEFT + plot(), top + y); pen.stroke();
      });
      pen.save(); pen.beginPath(); pen.rect(LEFT, top, plot(), CURVE); pen.clip();
      line(p, p.valence, data.valence, top); line(p, p.arousal, data.arousal, top); pen.restore();
      top += CURVE + GAP;
    }
    if (has.expr) {
      cells(p, top, RIBBON, (x, i) => { pen.fillStyle = data.expressions[p.expression[i]][1]; pen.fillRect(x, top, 1, RIBBON); });
      pen.fillStyle = colour.soft; pen.fillText("expr.", LEFT - 6, top + RIBBON / 2); top += RIBBON + GAP;
    }
    if (has.au) {
      cells(p, top, data.aus.length * AU, (x, i) => {
        pen.fillStyle = colour.paper; pen.fillRect(x, top, 1, data.aus.length * AU);
        for (let k = 0; k < data.aus.length; k++) {
          pen.fillStyle = shades[p.aus[i * data.aus.length + k]]; pen.fillRect(x, top + AU * k, 1, AU - 4);
          if (p.active[i] >> k & 1) { pen.fillStyle = colour.ink; pen.fillRect(x, top + AU * (k + 1) - 4, 1, 2); }
        }
      });
      pen.fillStyle = colour.soft; data.aus.forEach((name, k) => pen.fillText(name, LEFT - 6, top + AU * (k + 0.5))); top += data.aus.length * AU + GAP;
    }
    pen.fillStyle = colour.soft; pen.textAlign = "center";
    const raw = (to - from) / Math.max(2, plot() / 90), power = 10 ** Math.floor(Math.log10(raw));
    const tick = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= raw);
    for (let t = Math.ceil(from / tick) * tick; t <= to; t += tick) {
      pen.fillRect(toX(t), top - GAP + 2, 1, 5);
      pen.fillText(seconds(t, tick < 0.1 ? 2 : tick < 1 ? 1 : 0), Math.min(toX(t), w - 24), top + 6);
    }
    if (drag && Math.abs(drag.x - drag.at) > 3) { pen.globalAlpha = 0.2; pen.fillStyle = colour.ink; pen.fillRect(Math.min(drag.x, drag.at), 0, Math.abs(drag.x - drag.at), top - GAP); pen.globalAlpha = 1; }
    [[playing, 2], [cursor, 1]].forEach(([t, wide]) => {
      if (t !== null && t >= from && t <= to) { pen.fillStyle = colour.ink; pen.fillRect(toX(t) - wide / 2, 0, wide, top - GAP); }
    });
  }
  const seconds = (t, digits) => t.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) + " s";
  function tell() {
    const p = person();
    if (cursor === null) { read.textContent = HINT; return; }
    const i = rowAt(p, cursor), parts = [seconds(i < 0 ? cursor : p.time[i], 2)];
    if (!faceIn(p, i)) parts.push("no face");
    else {
      if (p.valence) parts.push(`valence ${(p.valence[i] / 10000).toFixed(2)}`, `arousal ${(p.arousal[i] / 10000).toFixed(2)}`);
      if (p.expression) parts.push(data.expressions[p.expression[i]][0]);
      if (p.aus) parts.push(data.aus.map((n, k) => (p.active[i] >> k & 1 ? `${n} ${(p.aus[i * data.aus.length + k] / 254).toFixed(2)}` : "")).filter(Boolean).join("  ") || "no AU");
    }
    read.textContent = parts.join("\u2003");
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
    else seek(toT(x));
    later();
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", (e) => { fingers.delete(e.pointerId); drag = null; });
  canvas.addEventListener("pointerleave", () => { cursor = null; later(); });
  canvas.addEventListener("dblclick", () => view(first, end));
  canvas.addEventListener("wheel", (e) => { // without Ctrl the wheel scrolls the page
    if (!e.deltaY || !(e.ctrlKey || e.metaKey)) return;
    e.preventDefault(); zoom(e.deltaY > 0 ? 1.25 : 0.8, toT(place(e)));
  }, { passive: false });
  const seek = (t) => { if (window.parent !== window) window.parent.postMessage({ wildaffect: "seek", seconds: t - first }, "*"); };
  function step(count) { // move the cursor by frames, also across the time in which this person is away
    const p = person(), i = cursor === null ? -1 : rowAt(p, cursor), last = p.time.length - 1;
    if (count === Infinity || count === -Infinity) go(p.time[count > 0 ? last : 0]);
    else go(p.time[i >= 0 ? Math.min(Math.max(i + count, 0), last) : cursor !== null && cursor > p.time[last] ? last : 0]);
  }
  function go(t) {
    cursor = t;
    if (t < from || t > to) view(t - (to - from) / 2, t + (to - from) / 2); else later();
  }
  canvas.addEventListener("keydown", (e) => {
    const middle = cursor === null ? (from + to) / 2 : cursor, jump = e.shiftKey ? 10 : 1;
    const act = {
      ArrowLeft: () => step(-jump), ArrowRight: () => step(jump), Home: () => step(-Infinity), End: () => step(Infinity),
      "+": () => zoom(0.5, middle), "=": () => zoom(0.5, middle), "-": () => zoom(2, middle), Escape: () => view(first, end),
      Enter: () => seek(middle),
    }[e.key];
    if (act && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); act(); }
  });
  canvas.addEventListener("blur", () => { cursor = null; later(); });
  root.querySelectorAll("button").forEach((b) => b.addEventListener("click", () => {
    const middle = (from + to) / 2, span = to - from;
    ({ in: () => zoom(0.5, middle), out: () => zoom(2, middle), all: () => view(first, end), left: () => view(from - span / 2, to - span / 2), right: () => view(from + span / 2, to + span / 2) })[b.dataset.do]();
  }));
  select.addEventListener("change", later);
  window.addEventListener("resize", later);
  window.addEventListener("message", (e) => { if (e.data && e.data.wildaffect === "playing") { playing = e.data.seconds + first; later(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  draw(); tell();
  // If a page shows the curves in a frame, tell it how high the frame must be.
  const tellHeight = () => window.parent.postMessage({ wildaffect: "height", height: root.getBoundingClientRect().bottom + 16 }, "*");
  if (window.parent !== window) new ResizeObserver(tellHeight).observe(root);
});
