// What is shown, and what happens when something is chosen, drawn or pointed at.

(() => {
  const $ = (id) => document.getElementById(id);
  const net = JSON.parse($("facts").textContent);
  const bytes = Uint8Array.from(atob($("arrays").textContent.trim()), (c) => c.charCodeAt(0));
  const arrays = Forward.unpack(net.sizes, bytes.buffer);
  const [CHANNELS, HEIGHT, WIDTH] = net.steps[0].shape;
  const LOW = net.samples ? net.samples.low : 0, HIGH = net.samples ? net.samples.high : 1;
  const OWN_ROW = new Set(["input", "conv", "dense", "maxpool", "avgpool", "globalavgpool",
    "globalmaxpool", "concat", "add", "sub", "mul"]);

  let input = new Float32Array(CHANNELS * HEIGHT * WIDTH).fill(LOW);
  let results = [], pointed = null, kept = false;
  const cards = []; // by step; none for a reshape, whose units are those of its input

  function make(tag, parent, text = "", facts = {}) {
    const made = Object.assign(document.createElement(tag), facts);
    if (text) made.textContent = text;
    parent.append(made);
    return made;
  }

  // The step that shows the units of a step.
  function shown(number) {
    while (net.steps[number].op === "reshape") [number] = net.steps[number].inputs;
    return number;
  }

  const named = (number, unit) => {
    const shape = net.steps[number].shape, index = [];
    for (let a = shape.length - 1; a >= 0; a--) {
      index.unshift(unit % shape[a]);
      unit = Math.floor(unit / shape[a]);
    }
    return `${net.steps[number].name}[${index.join(", ")}]`;
  };
  const digits = (v) => (Math.abs(v) >= 1e-4 || v === 0 ? v.toFixed(4) : v.toExponential(2))
    .replace("-", "−");

  // --- building ----------------------------------------------------------------------------------

  function build() {
    $("title").textContent = net.name;
    $("note").textContent = net.note;
    let row = null;
    net.steps.forEach((step, number) => {
      if (step.op === "reshape") return;
      if (row === null || OWN_ROW.has(step.op))
        row = make("div", $("stack"), "", { className: "layers" });
      const card = make("div", row, "", { className: "card" });
      const head = make("header", card);
      make("b", head, step.name);
      make("span", head, `${step.shape.join(" × ")}`);
      const range = make("span", head);
      make("span", head, step.about);
      const body = make("div", card, "", { className: "body" });
      const canvas = make("canvas", body);
      if (number === 0) legend(body);
      cards[number] = { card, canvas, range, place: null };
      const under = (event) => {
        const box = canvas.getBoundingClientRect();
        const unit = cards[number].place.at(event.clientX - box.left, event.clientY - box.top);
        return unit === null ? null : { step: number, unit };
      };
      canvas.addEventListener("pointermove", (event) => kept || point(under(event)));
      canvas.addEventListener("pointerleave", () => kept || point(null));
      canvas.addEventListener("click", (event) => {
        const unit = under(event), same = unit && pointed && unit.step === pointed.step &&
          unit.unit === pointed.unit;
        kept = unit !== null && !(kept && same);
        point(unit);
      });
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        kept = false;
        point(null);
      }
    });
  }

  function legend(body) {
    const list = make("dl", body, "", { className: "legend" });
    const ramp = Array.from({ length: 9 }, (_, i) => Paint.colour(i / 4 - 1, 1, false));
    const { ACCENT, PIXELS } = Paint;
    for (const [style, text] of [
      [{ background: `linear-gradient(90deg, ${ramp})` }, "negative, zero, positive"],
      [{ border: `2px solid ${ACCENT}` }, "what the unit under the pointer reads"],
      [{ border: `2px solid ${PIXELS}` }, "pixels that it depends on; all other units are faint"],
    ]) {
      Object.assign(make("dt", list).style, style);
      make("dd", list, text);
    }
  }

  function offer() {
    if (!net.samples) {
      $("choosing").remove();
      return;
    }
    const { array, count, classes, names, title } = net.samples, each = input.length;
    $("samples-title").textContent = title;
    for (let n = 0; n < count; n++) {
      const x = arrays[array].subarray(n * each, (n + 1) * each);
      const name = classes.length ? names[classes[n]] ?? `${classes[n]}` : `sample ${n}`;
      const button = make("button", $("samples"), "", { type: "button", title: name });
      button.setAttribute("aria-label", name);
      button.setAttribute("aria-pressed", "false");
      const place = Paint.layout([1, HEIGHT, WIDTH], 1, 26, 26);
      Paint.units(make("canvas", button), place, x.subarray(0, HEIGHT * WIDTH),
        { ink: true, scale: HIGH || 1 });
      button.addEventListener("click", () => {
        pad.clear();
        show(x, button);
      });
    }
  }

  // --- running -----------------------------------------------------------------------------------

  function show(x, button = null) {
    input = Float32Array.from(x);
    for (const b of $("samples") ? $("samples").children : [])
      b.setAttribute("aria-pressed", `${b === button}`);
    results = Forward.run(net, arrays, input);
    answer();
    point(pointed);
  }

  function drawn(strokes) {
    const share = Drawing.pixels(strokes, HEIGHT, WIDTH, $("fit").checked);
    show(Float32Array.from(input, (_, i) => LOW + (HIGH - LOW) * share[i % share.length]));
  }

  function answer() {
    const box = $("answer"), last = net.outputs[0], values = Array.from(results[last]);
    box.replaceChildren();
    if (net.steps[last].shape.length !== 1) {
      make("p", box, `${net.steps[last].name} is a tensor of ${net.steps[last].shape.join(" × ")}`);
      return;
    }
    const chances = net.steps[last].op === "softmax";
    const top = Math.max(...values), mass = values.reduce((a, v) => a + Math.exp(v - top), 0);
    const shares = chances ? values : values.map((v) => Math.exp(v - top) / mass);
    const best = values.indexOf(top), names = net.samples ? net.samples.names : [];
    make("p", box, chances ? net.steps[last].name : `softmax of ${net.steps[last].name}`);
    shares.forEach((share, c) => {
      make("span", box, names[c] ?? `${c}`, { className: c === best ? "best" : "" });
      make("i", box).style.width = `${Math.max(share * 100, 0.8)}%`;
      make("span", box, `${(share * 100).toFixed(1)} %`);
    });
  }

  // --- pointing ----------------------------------------------------------------------------------

  function point(to) {
    pointed = to;
    const sources = to ? Connections.sources(net, arrays, results, to.step, to.unit) : [];
    const cone = to ? Connections.cone(net, arrays, results, to.step, to.unit) : null;
    paint(cone, sources);
    link(sources);
    explain(sources, cone);
  }

  function paint(cone, sources) {
    cards.forEach((card, number) => {
      const step = net.steps[number], vector = step.shape.length === 1;
      const width = card.card.clientWidth - 28;
      card.place = Paint.layout(step.shape, width, vector ? 60 : 210, vector ? 22 : 14);
      const scale = number === 0 ? Math.max(Math.abs(LOW), Math.abs(HIGH)) : undefined;
      card.range.textContent = `±${(scale ?? Paint.largest(results[number])).toPrecision(3)}`;
      const inside = cone && number < pointed.step ? cone[number] : null;
      const context = Paint.units(card.canvas, card.place, results[number],
        { ink: number === 0, inside, ...(scale === undefined ? {} : { scale }) });
      if (inside && number === 0 && inside.size)
        for (const units of perMap(number, [...inside]))
          Paint.outline(context, Paint.around(card.place, units), Paint.PIXELS);
      const direct = sources.filter((s) => shown(s.step) === number).map((s) => s.unit);
      if (direct.length)
        for (const units of perMap(number, direct))
          Paint.outline(context, Paint.around(card.place, units));
      if (pointed && pointed.step === number)
        Paint.outline(context, card.place.unit(pointed.unit), "#111", 2.5);
    });
  }

  // Units of a step, map by map.
  function perMap(number, units) {
    const { shape } = net.steps[number];
    const each = shape.length === 3 ? shape[1] * shape[2] : shape[0];
    const maps = new Map();
    for (const u of units) {
      const k = Math.floor(u / each);
      if (!maps.has(k)) maps.set(k, []);
      maps.get(k).push(u);
    }
    return maps.values();
  }

  // Lines from the unit to what it reads, stronger where the weights are larger.
  function link(sources) {
    $("links").replaceChildren();
    if (!sources.length) return;
    const frame = $("stack").getBoundingClientRect();
    const middle = (number, r) => {
      const box = cards[number].canvas.getBoundingClientRect();
      return [box.left - frame.left + r.x + r.w / 2, box.top - frame.top + r.y + r.h / 2];
    };
    const to = middle(pointed.step, cards[pointed.step].place.unit(pointed.unit));
    const groups = new Map();
    for (const s of sources) {
      const number = shown(s.step), { shape } = net.steps[number];
      const map = shape.length === 3 ? Math.floor(s.unit / (shape[1] * shape[2])) : s.unit;
      const key = `${number} ${map}`;
      if (!groups.has(key)) groups.set(key, { number, units: [], signed: 0 });
      const group = groups.get(key);
      group.units.push(s.unit);
      group.signed += (s.weight ?? 1) * results[number][s.unit];
    }
    const most = Math.max(...[...groups.values()].map((g) => Math.abs(g.signed))) || 1;
    for (const { number, units, signed } of groups.values()) {
      const from = middle(number, Paint.around(cards[number].place, units));
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const facts = {
        x1: from[0], y1: from[1], x2: to[0], y2: to[1],
        stroke: signed < 0 ? "#16529e" : "#b02a12",
        "stroke-width": 0.6 + (1.8 * Math.abs(signed)) / most,
        "stroke-opacity": 0.12 + (0.6 * Math.abs(signed)) / most,
      };
      for (const [name, value] of Object.entries(facts)) line.setAttribute(name, `${value}`);
      $("links").append(line);
    }
  }

  // --- the panel of a unit -----------------------------------------------------------------------

  const HINT = $("unit").querySelector(".hint");

  function explain(sources, cone) {
    const box = $("unit");
    box.replaceChildren();
    make("h2", box, kept ? "A unit, kept" : "A unit");
    if (!pointed) {
      box.append(HINT);
      return;
    }
    const { step, unit } = pointed, weighted = sources.some((s) => s.weight !== null);
    make("p", box, `${named(step, unit)} = ${digits(results[step][unit])}`,
      { className: "value" });
    make("p", box, net.steps[step].about, { className: "hint" });
    if (!sources.length) return;
    const value = (s) => results[s.step][s.unit];
    const list = make("dl", box), row = (name, text) => {
      make("dt", list, name);
      make("dd", list, text);
    };
    row("reads", `${sources.length} unit${sources.length > 1 ? "s" : ""} of ${
      [...new Set(sources.map((s) => net.steps[shown(s.step)].name))].join(", ")}`);
    row("depends on", `${cone[0].size} of ${input.length} of ${net.input}`);
    if (weighted) {
      const offset = Connections.offset(net, arrays, step, unit);
      const sum = sources.reduce((a, s) => a + s.weight * value(s), 0);
      row("sum of the products", digits(sum));
      if (offset) row("bias", digits(offset));
      row("together", digits(sum + offset));
    }
    for (const number of new Set(sources.map((s) => shown(s.step)))) {
      const own = sources.filter((s) => shown(s.step) === number);
      if (own.length < 2) continue;
      const name = net.steps[number].name;
      patches(box, `what it sees of ${name}`, number, own, value, number === 0);
      if (weighted) {
        patches(box, "its weights", number, own, (s) => s.weight, false);
        patches(box, "their products", number, own, (s) => s.weight * value(s), false);
      }
    }
  }

  // Values of some units of a layer, map by map, positions that are not read left out.
  function patches(box, title, number, sources, value, ink) {
    const { shape } = net.steps[number], [H, W] = shape.length === 3 ? shape.slice(1) : [1, 1];
    const rank = (of) => {
      const all = [...new Set(sources.map((s) => of(s.unit)))].sort((a, b) => a - b);
      return { size: all.length, at: new Map(all.map((v, i) => [v, i])), of };
    };
    const maps = rank((u) => Math.floor(u / (H * W)));
    const rows = rank((u) => Math.floor(u / W) % H), columns = rank((u) => u % W);
    const vector = shape.length === 1;
    const values = new Float32Array(maps.size * rows.size * columns.size);
    let chosen = null;
    for (const s of sources) {
      const [k, a, b] = [maps, rows, columns].map((r) => r.at.get(r.of(s.unit)));
      const at = (k * rows.size + a) * columns.size + b;
      values[at] = value(s);
      if (s.chosen) chosen = at;
    }
    make("h3", box, `${title} (±${Paint.largest(values).toPrecision(3)})`);
    const dims = vector ? [maps.size] : [maps.size, rows.size, columns.size];
    const place = Paint.layout(dims, 282, 130, 22);
    const context = Paint.units(make("canvas", box), place, values, { ink });
    if (chosen !== null) Paint.outline(context, place.unit(chosen));
  }

  // --- start -------------------------------------------------------------------------------------

  build();
  $("pad").style.backgroundSize = `${100 / WIDTH}% ${100 / HEIGHT}%`;
  const pad = Drawing.pad($("pad"), drawn);
  offer();
  $("clear").addEventListener("click", () => {
    pad.clear();
    drawn([]);
  });
  $("fit").addEventListener("change", () => pad.strokes().length && drawn(pad.strokes()));
  window.addEventListener("resize", () => point(pointed));
  const first = $("samples") && $("samples").querySelector("button");
  if (first) first.click();
  else drawn([]);

  // For scripts and tests: what the page has computed, and where a unit is on the screen.
  window.cnncc = {
    input: () => Array.from(input),
    activations: () =>
      Object.fromEntries(net.steps.map((s, n) => [s.name, Array.from(results[n])])),
    pointed: () => pointed && {
      layer: net.steps[pointed.step].name,
      unit: pointed.unit,
      sources: Connections.sources(net, arrays, results, pointed.step, pointed.unit)
        .map((s) => ({ layer: net.steps[s.step].name, unit: s.unit, weight: s.weight })),
      offset: Connections.offset(net, arrays, pointed.step, pointed.unit),
      cone: [...Connections.cone(net, arrays, results, pointed.step, pointed.unit)[0]],
    },
    place: (layer, unit) => {
      const { canvas, place } = cards[net.steps.findIndex((s) => s.name === layer)];
      canvas.scrollIntoView({ block: "center" });
      const box = canvas.getBoundingClientRect(), { x, y, w, h } = place.unit(unit);
      return [box.left + x + w / 2, box.top + y + h / 2];
    },
  };
})();
