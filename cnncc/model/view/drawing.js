// The pad. Strokes are kept as points; from them comes a bitmap of 4x4 dots per pixel of the input,
// and a pixel is the share of its dots that are on. This is how the handwritten digits of the UCI
// repository were made: bitmaps of 32x32 dots that fill their frame, counted in blocks of 4x4.

const Drawing = (() => {
  const DOTS = 4, RADIUS = 1.9; // a stroke's half width in dots
  const SHARE = 0.94; // of the frame that a scaled drawing fills

  // The share of dots that are on, for an input of height x width. Points are in units of the pad's
  // side, as are the strokes [[x, y], ...].
  function pixels(strokes, height, width, fill) {
    const tall = height * DOTS, wide = width * DOTS, on = new Float32Array(height * width);
    const scale = [wide, tall];
    let drawn = strokes.map((stroke) => stroke.map((point) => point.map((v, i) => v * scale[i])));
    const all = drawn.flat();
    if (!all.length) return on;
    if (fill) {
      const low = [0, 1].map((i) => Math.min(...all.map((p) => p[i])));
      const high = [0, 1].map((i) => Math.max(...all.map((p) => p[i])));
      const room = (i) => scale[i] * SHARE - 2 * RADIUS;
      const by = Math.min(...[0, 1].map((i) => room(i) / Math.max(high[i] - low[i], 1e-3)), 20);
      drawn = drawn.map((stroke) => stroke.map((point) =>
        point.map((v, i) => (v - (low[i] + high[i]) / 2) * by + scale[i] / 2)));
    }
    for (let y = 0; y < tall; y++)
      for (let x = 0; x < wide; x++)
        if (drawn.some((stroke) => touches(stroke, x + 0.5, y + 0.5)))
          on[Math.floor(y / DOTS) * width + Math.floor(x / DOTS)] += 1 / (DOTS * DOTS);
    return on;
  }

  function touches(stroke, x, y) {
    return stroke.some((to, i) => distance(stroke[Math.max(i - 1, 0)], to, x, y) <= RADIUS);
  }

  function distance([ax, ay], [bx, by], x, y) {
    const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
    const t = length ? Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / length)) : 0;
    return Math.hypot(x - ax - t * dx, y - ay - t * dy);
  }

  // Listen to a canvas; `changed` is called after every point.
  function pad(canvas, changed) {
    let strokes = [], active = false;
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    const show = () => {
      const context = canvas.getContext("2d"), { width, height } = canvas;
      context.clearRect(0, 0, width, height);
      context.lineWidth = width / 9;
      context.lineCap = context.lineJoin = "round";
      context.strokeStyle = "#181a20";
      for (const stroke of strokes) {
        context.beginPath();
        for (const [x, y] of [stroke[0], ...stroke]) context.lineTo(x * width, y * height);
        context.stroke();
      }
    };
    const add = (event) => {
      strokes[strokes.length - 1].push(point(event));
      show();
      changed(strokes);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      active = true;
      strokes.push([]);
      add(event);
    });
    canvas.addEventListener("pointermove", (event) => active && add(event));
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, () => (active = false));
    return {
      strokes: () => strokes,
      clear: () => {
        strokes = [];
        show();
      },
    };
  }

  return { pad, pixels };
})();
