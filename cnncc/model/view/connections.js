// What a unit is computed from: the units of earlier layers, each with its weight where it has one,
// and everything that these depend on in turn.

const Connections = (() => {
  // [{ step, unit, weight }]: weight is null where nothing is multiplied (a maximum, a function of
  // one unit). For a maximum all units under the window are given; the largest has `chosen`.
  function sources(net, arrays, results, number, unit) {
    const step = net.steps[number], [from] = step.inputs;
    if (from === undefined) return [];
    const source = net.steps[from];
    const [H, W] = step.shape.length === 3 ? step.shape.slice(1) : [1, 1];
    const k = Math.floor(unit / (H * W)), o = Math.floor(unit / W) % H, p = unit % W;
    const plain = (units, weight = null) => units.map((u) => ({ step: from, unit: u, weight }));
    switch (step.op) {
      case "conv":
        return convolved(step, source, from, arrays, k, o, p);
      case "dense": {
        const inputs = source.shape.reduce((a, b) => a * b, 1), weight = arrays[step.weight];
        return Array.from({ length: inputs }, (_, i) =>
          ({ step: from, unit: i, weight: weight[unit * inputs + i] }));
      }
      case "maxpool":
        return marked(plain(Forward.seen(step, source, k, o, p)), results[from]);
      case "avgpool":
        return plain(Forward.seen(step, source, k, o, p), 1 / arrays[step.counts][o * W + p]);
      case "globalmaxpool":
      case "globalavgpool": {
        const each = source.shape.slice(1).reduce((a, b) => a * b, 1);
        const units = Array.from({ length: each }, (_, i) => unit * each + i);
        return step.op === "globalavgpool"
          ? plain(units, 1 / each) : marked(plain(units), results[from]);
      }
      case "softmax":
      case "log_softmax": {
        const places = H * W;
        return plain(Array.from({ length: step.shape[0] }, (_, c) => c * places + (unit % places)));
      }
      case "affine":
        return plain([unit], arrays[step.fold][k]);
      case "add":
      case "sub": {
        const places = [0, 1].filter((i) => step.arrays[i] === null); // which operands are tensors
        return step.inputs.map((n, i) =>
          ({ step: n, unit, weight: step.op === "sub" && places[i] === 1 ? -1 : 1 }));
      }
      case "mul": {
        const array = step.arrays.find((n) => n !== null);
        const weight = array === undefined ? null : arrays[array][unit];
        return step.inputs.map((n) => ({ step: n, unit, weight }));
      }
      case "concat":
        return joined(net, step, unit);
      default:
        return plain([unit]);
    }
  }

  function convolved(step, source, from, arrays, k, o, p) {
    const [, h, w] = source.shape, [, inner, wh, ww] = step.weight_shape;
    const [vertical, horizontal] = step.window, weight = arrays[step.weight], found = [];
    const first = Math.floor(k / (step.shape[0] / step.groups)) * inner;
    const rows = Forward.positions(vertical, o, h), columns = Forward.positions(horizontal, p, w);
    for (let c = 0; c < inner; c++)
      rows.forEach((row, a) => columns.forEach((column, b) => {
        if (row < 0 || column < 0) return;
        const line = ((k * inner + c) * wh + Forward.entry(vertical, step.tiles[0], o, a)) * ww;
        const at = line + Forward.entry(horizontal, step.tiles[1], p, b);
        found.push({ step: from, unit: ((first + c) * h + row) * w + column, weight: weight[at] });
      }));
    return found;
  }

  function marked(units, values) {
    const best = units.reduce((a, b) => (values[b.unit] > values[a.unit] ? b : a), units[0]);
    if (best) best.chosen = true;
    return units;
  }

  function joined(net, step, unit) {
    for (const n of step.inputs) {
      const size = net.steps[n].shape.reduce((a, b) => a * b, 1);
      if (unit < size) return [{ step: n, unit, weight: null }];
      unit -= size;
    }
    return [];
  }

  // What is added besides the products, 0 where nothing is.
  function offset(net, arrays, number, unit) {
    const step = net.steps[number];
    if (step.op === "conv" || step.op === "dense")
      return step.bias === null ? 0 : arrays[step.bias][unit];
    if (step.op === "affine") {
      const channels = step.shape[0], each = step.shape.reduce((a, b) => a * b, 1) / channels;
      return arrays[step.fold][channels + Math.floor(unit / each)];
    }
    const array = ["add", "sub"].includes(step.op) ? step.arrays.findIndex((n) => n !== null) : -1;
    if (array < 0) return 0;
    return arrays[step.arrays[array]][unit] * (step.op === "sub" && array === 1 ? -1 : 1);
  }

  // The cone below a unit: for every step the set of units that it depends on.
  function cone(net, arrays, results, number, unit) {
    const sets = net.steps.map(() => new Set());
    sets[number].add(unit);
    for (let n = number; n > 0; n--)
      for (const u of sets[n])
        for (const s of sources(net, arrays, results, n, u)) sets[s.step].add(s.unit);
    return sets;
  }

  return { sources, offset, cone };
})();
