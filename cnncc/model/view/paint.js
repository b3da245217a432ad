// Maps as coloured cells. Blue is negative, white is zero, red is positive; the input is ink.

const Paint = (() => {
  const WHITE = [255, 255, 255], RED = [176, 42, 18], BLUE = [22, 82, 158], INK = [24, 26, 32];
  const ACCENT = "#0b7a53", PIXELS = "#d98a00", GAP = 5;

  function colour(value, scale, ink) {
    const t = Math.max(-1, Math.min(1, scale > 0 ? value / scale : 0));
    const end = t < 0 ? BLUE : ink ? INK : RED, part = Math.abs(t) ** 0.75;
    return `rgb(${WHITE.map((w, i) => Math.round(w + (end[i] - w) * part)).join(",")})`;
  }

  const largest = (values) => values.reduce((a, v) => Math.max(a, Math.abs(v)), 0);

  // Where the units of a tensor are on a canvas of a width: maps side by side, in lines. The cells
  // are as large as leaves the canvas at most `tall`.
  function layout(shape, width, tall, most) {
    const [K, H, W] = shape.length === 3 ? shape : [shape[0], 1, 1];
    const gap = H * W > 1 ? GAP : 2;
    for (let cell = most; ; cell--) {
      const perLine = Math.max(1, Math.min(K, Math.floor((width + gap) / (W * cell + gap))));
      const lines = Math.ceil(K / perLine), height = lines * (H * cell + gap) - gap;
      if (height > tall && cell > 2) continue;
      const left = (k) => (k % perLine) * (W * cell + gap) + 1;
      const top = (k) => Math.floor(k / perLine) * (H * cell + gap) + 1;
      return {
        K, H, W, width: perLine * (W * cell + gap) - gap + 2, height: height + 2,
        map: (k) => ({ x: left(k), y: top(k), w: W * cell, h: H * cell }),
        unit: (u) => {
          const k = Math.floor(u / (H * W)), row = Math.floor(u / W) % H, column = u % W;
          return { x: left(k) + column * cell, y: top(k) + row * cell, w: cell, h: cell };
        },
        at: (x, y) => {
          const line = Math.floor((y - 1) / (H * cell + gap));
          const place = Math.floor((x - 1) / (W * cell + gap)), k = line * perLine + place;
          if (line < 0 || place < 0 || place >= perLine || k >= K) return null;
          const row = Math.floor((y - top(k)) / cell), column = Math.floor((x - left(k)) / cell);
          const inside = row >= 0 && row < H && column >= 0 && column < W;
          return inside ? (k * H + row) * W + column : null;
        },
      };
    }
  }

  // A canvas with sharp pixels of the screen; returns its context in CSS pixels.
  function prepare(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    return context;
  }

  // All units of a tensor; those outside `inside` (a set, or null for all) are faint.
  function units(canvas, place, values, { ink = false, inside = null, scale = largest(values) }) {
    const context = prepare(canvas, place.width, place.height);
    for (let k = 0; k < place.K; k++) {
      const m = place.map(k);
      context.fillStyle = "#fff";
      context.fillRect(m.x, m.y, m.w, m.h);
    }
    for (let u = 0; u < values.length; u++) {
      const { x, y, w, h } = place.unit(u);
      context.globalAlpha = inside === null || inside.has(u) ? 1 : 0.16;
      context.fillStyle = colour(values[u], scale, ink);
      context.fillRect(x, y, w, h);
    }
    context.globalAlpha = 1;
    context.strokeStyle = "#c9cbd2";
    context.lineWidth = 1;
    for (let k = 0; k < place.K; k++) {
      const m = place.map(k);
      context.strokeRect(m.x - 0.5, m.y - 0.5, m.w + 1, m.h + 1);
    }
    return context;
  }

  // The smallest rectangle around some units of one map.
  function around(place, chosen) {
    const all = chosen.map(place.unit);
    const x = Math.min(...all.map((r) => r.x)), y = Math.min(...all.map((r) => r.y));
    return {
      x, y,
      w: Math.max(...all.map((r) => r.x + r.w)) - x,
      h: Math.max(...all.map((r) => r.y + r.h)) - y,
    };
  }

  function outline(context, { x, y, w, h }, style = ACCENT, thick = 2) {
    context.strokeStyle = style;
    context.lineWidth = thick;
    context.strokeRect(x, y, w, h);
  }

  return { ACCENT, PIXELS, colour, largest, layout, units, around, outline, prepare };
})();
