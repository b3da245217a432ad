// The forward pass. Tensors are Float32Arrays in row-major order, channels first, [C, H, W] or [F].
// Sums run in the order of the compiled kernels: from the bias on, over channels, then taps. The
// product of two floats is exact in a double, so Math.fround after each addition is their fma.

const Forward = (() => {
  const f = Math.fround;

  // The input positions under output o along an axis, one per tap; -1 where a tap sees padding.
  const positions = (axis, o, extent) =>
    Array.from({ length: axis.size }, (_, k) => {
      const i = o * axis.stride + k * axis.dilation - axis.lo;
      return i >= 0 && i < extent ? i : -1;
    });

  // The entry of the weight of a conv along one axis: output o uses kernel o % tiles.
  const entry = (axis, tiles, o, k) => (o % tiles) * axis.size + k;

  function conv(step, [x], [source], arrays) {
    const [K, H, W] = step.shape, [C, h, w] = source.shape;
    const weight = arrays[step.weight], bias = step.bias === null ? null : arrays[step.bias];
    const [, inner, wh, ww] = step.weight_shape, [vertical, horizontal] = step.window;
    const y = new Float32Array(K * H * W), perGroup = K / step.groups;
    for (let o = 0; o < H; o++) {
      const rows = positions(vertical, o, h);
      for (let p = 0; p < W; p++) {
        const columns = positions(horizontal, p, w);
        for (let k = 0; k < K; k++) {
          const at = (k * H + o) * W + p, first = Math.floor(k / perGroup) * inner;
          let sum = bias ? bias[at] : 0;
          for (let c = 0; c < inner; c++)
            for (let a = 0; a < rows.length; a++) {
              if (rows[a] < 0) continue;
              const line = ((k * inner + c) * wh + entry(vertical, step.tiles[0], o, a)) * ww;
              const from = ((first + c) * h + rows[a]) * w;
              for (let b = 0; b < columns.length; b++)
                if (columns[b] >= 0)
                  sum = f(sum + x[from + columns[b]] *
                    weight[line + entry(horizontal, step.tiles[1], p, b)]);
            }
          y[at] = sum;
        }
      }
    }
    return y;
  }

  function dense(step, [x], _, arrays) {
    const weight = arrays[step.weight], bias = step.bias === null ? null : arrays[step.bias];
    return Float32Array.from({ length: step.shape[0] }, (_, o) => {
      let sum = bias ? bias[o] : 0;
      for (let i = 0; i < x.length; i++) sum = f(sum + x[i] * weight[o * x.length + i]);
      return sum;
    });
  }

  // What a pool's unit sees, as indices into its input.
  function seen(step, source, k, o, p) {
    const [, h, w] = source.shape, [vertical, horizontal] = step.window, found = [];
    for (let c = k * step.across; c < (k + 1) * step.across; c++)
      for (const row of positions(vertical, o, h))
        for (const column of positions(horizontal, p, w))
          if (row >= 0 && column >= 0) found.push((c * h + row) * w + column);
    return found;
  }

  const pool = (reduce) => (step, [x], [source], arrays) => {
    const [K, H, W] = step.shape, y = new Float32Array(K * H * W);
    for (let k = 0; k < K; k++)
      for (let o = 0; o < H; o++)
        for (let p = 0; p < W; p++)
          y[(k * H + o) * W + p] =
            reduce(seen(step, source, k, o, p).map((i) => x[i]), o * W + p, step, arrays);
    return y;
  };
  const largest = (values) =>
    values.reduce((a, b) => (Number.isNaN(a) || a >= b ? a : b), -Infinity);
  const total = (values) => values.reduce((a, b) => f(a + b), 0);

  const perMap = (reduce) => (step, [x]) => {
    const each = x.length / step.shape[0];
    return Float32Array.from({ length: step.shape[0] },
      (_, k) => reduce(Array.from(x.subarray(k * each, (k + 1) * each))));
  };

  // Over the channels, at every position by itself.
  const perPosition = (finish) => (step, [x]) => {
    const channels = step.shape[0], places = x.length / channels, y = new Float32Array(x.length);
    for (let s = 0; s < places; s++) {
      const at = (c) => c * places + s;
      let top = -Infinity, mass = 0;
      for (let c = 0; c < channels; c++) top = Math.max(top, x[at(c)]);
      for (let c = 0; c < channels; c++) mass += Math.exp(x[at(c)] - top);
      for (let c = 0; c < channels; c++) y[at(c)] = finish(x[at(c)] - top, mass);
    }
    return y;
  };

  const pointwise = (of) => (step, [x]) => x.map((v) => of(v, step));

  const between = (of) => (step, inputs, _, arrays) => {
    let next = 0;
    const [a, b] = step.arrays.map((n) => (n === null ? inputs[next++] : arrays[n]));
    return a.map((v, i) => of(v, b[i]));
  };

  function affine(step, [x], _, arrays) {
    const fold = arrays[step.fold], channels = step.shape[0], each = x.length / channels;
    return x.map((v, i) => {
      const c = Math.floor(i / each);
      return v * fold[c] + fold[channels + c];
    });
  }

  function concat(step, inputs) {
    const y = new Float32Array(inputs.reduce((n, x) => n + x.length, 0));
    inputs.reduce((at, x) => (y.set(x, at), at + x.length), 0);
    return y;
  }

  const OPERATORS = {
    conv, dense, affine, concat,
    maxpool: pool(largest),
    avgpool: pool((values, place, step, arrays) => total(values) / arrays[step.counts][place]),
    globalmaxpool: perMap(largest),
    globalavgpool: perMap((values) => total(values) / values.length),
    softmax: perPosition((x, mass) => Math.exp(x) / mass),
    log_softmax: perPosition((x, mass) => x - Math.log(mass)),
    reshape: pointwise((x) => x),
    relu: pointwise((x) => (x < 0 ? 0 : x)),
    leaky_relu: pointwise((x, { slope }) => (x > 0 ? x : slope * x)),
    elu: pointwise((x, { alpha }) => (x > 0 ? x : alpha * Math.expm1(x))),
    sigmoid: pointwise((x) => 1 / (1 + Math.exp(-x))),
    tanh: pointwise(Math.tanh),
    stanh: pointwise((x) => 1.7159 * Math.tanh((2 * x) / 3)),
    softplus: pointwise((x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))),
    add: between((a, b) => a + b),
    sub: between((a, b) => a - b),
    mul: between((a, b) => a * b),
  };

  // The result of every step, in order; the first is the input itself.
  function run(net, arrays, input) {
    const results = [input];
    for (const step of net.steps.slice(1)) {
      const inputs = step.inputs.map((n) => results[n]);
      const sources = step.inputs.map((n) => net.steps[n]);
      results.push(OPERATORS[step.op](step, inputs, sources, arrays));
    }
    return results;
  }

  // The arrays of a page from their sizes and the bytes of all, little-endian.
  function unpack(sizes, buffer) {
    const view = new DataView(buffer);
    let at = 0;
    return sizes.map((n) => Float32Array.from({ length: n }, () => {
      at += 4;
      return view.getFloat32(at - 4, true);
    }));
  }

  return { run, unpack, positions, entry, seen };
})();
