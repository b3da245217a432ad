"""Codes E0201 to E0399: shapes, names and arguments, found while a network is built."""

from __future__ import annotations

from cnncc.errors.explanation import Explanation


def _entry(title: str, law: str, wrong: str, right: str, shape: str = "1, 8, 8") -> Explanation:
    """An entry whose examples are the lines of a net between its input and its output."""
    head = f"net small {{\n  input x: f32[{shape}]\n  "
    tail = "\n  output y\n}"
    return Explanation(title, law, head + wrong + tail, head + right + tail)


SHAPES: dict[str, Explanation] = {
    "E0201": _entry(
        "operands whose shapes do not agree",
        "Element by element operators take tensors of the same shape. On one side a number, or one "
        "value per channel, is allowed.",
        "a = x -> conv(4, 3x3)\n  y = a + x",
        "a = x -> conv(1, 3x3, pad = same)\n  y = a + x",
    ),
    "E0202": _entry(
        "the stride does not fit",
        "A window of k taps over n positions with stride s gives (n + lo + hi - k) / s + 1 "
        "outputs, and by default that must be a whole number, because otherwise the last "
        "positions are silently never looked at. Change the stride or the padding, let `pad = "
        "solve(out = n)` find one, or say `fit = floor` to drop the remainder as other frameworks "
        "do; `default fit = floor` says it for a whole net.",
        "y = x -> maxpool(3x3)",
        "y = x -> maxpool(3x3, fit = floor)",
    ),
    "E0203": _entry(
        "a wrong number of axes",
        "A size, stride, dilation or padding has one value for all spatial axes or one for each, "
        "and an operator for images takes 1, 2 or 3 spatial axes after the channels. The batch "
        "axis is never written.",
        "y = x -> conv(4, 3x3x3)",
        "y = x -> conv(4, 3x3)",
    ),
    "E0204": _entry(
        "groups must divide the channels",
        "With `connect = groups(g)` the input channels and the output channels are split into g "
        "equal parts.",
        "y = x -> conv(3, 3x3, connect = groups(2))",
        "y = x -> conv(4, 3x3, connect = groups(2))",
        shape="2, 8, 8",
    ),
    "E0205": _entry(
        "a window is too large",
        "With its dilation a window spans (k - 1) * d + 1 positions, and there must be so many, "
        "padding included.",
        "y = x -> conv(4, 9x9)",
        "y = x -> conv(4, 9x9, pad = same)",
    ),
    "E0206": _entry(
        "a parameter would depend on a symbolic extent",
        "Extents such as H and W may change from call to call, so no weight can have their size. "
        "Pool to a fixed size before a dense layer.",
        "y = x -> flatten -> dense(10)",
        "y = x -> globalavgpool -> flatten -> dense(10)",
        shape="1, H, W",
    ),
    "E0207": _entry(
        "a transposed conv cannot have these extents",
        "The extents that a transposed conv gives are those that its window maps back to the "
        "extents of its input; with a stride of s there are s of them. The message lists them.",
        "y = x -> conv_transpose(4, 3x3, stride = 2, out = (30, 30))",
        "y = x -> conv_transpose(4, 3x3, stride = 2, out = (17, 17))",
    ),
    "E0208": _entry(
        "a padding that cannot be",
        "Padding is not negative, a reflected border is smaller than the input, a window of a pool "
        "never sees padding only, and `same` and `solve` need extents that are known.",
        "y = x -> conv(4, 3x3, pad = reflect(8))",
        "y = x -> conv(4, 3x3, pad = reflect(1))",
    ),
    "E0209": _entry(
        "a crop leaves nothing",
        "At least one position is left along each axis.",
        "y = x -> crop(4)",
        "y = x -> crop(3)",
    ),
    "E0210": Explanation(
        "an operator gets the wrong kind of elements",
        "Operators compute with floats. Images of bytes become floats by `scale`, `mean` and `std` "
        "at the input, and class numbers by `embed`.",
        "net small {\n  input x: i64[1, 8, 8]\n  output relu(x)\n}",
        "net small {\n  input x: u8[1, 8, 8] (scale = 255)\n  output relu(x)\n}",
    ),
    "E0211": Explanation(
        "the loss gets shapes that do not belong together",
        "`mse` compares tensors of one type; `cross_entropy` takes scores with a class axis and "
        "one class number for each of the other positions.",
        "net small {\n  input x: f32[1, 8, 8]\n  output y = x -> flatten -> dense(10)\n}\n"
        "train small {\n  target t: f32[5]\n  loss = mse(y, t)\n  optimizer = sgd(lr = 0.1)\n"
        "  batch = 8\n  epochs = 1\n}",
        "net small {\n  input x: f32[1, 8, 8]\n  output y = x -> flatten -> dense(10)\n}\n"
        "train small {\n  target t: f32[10]\n  loss = mse(y, t)\n  optimizer = sgd(lr = 0.1)\n"
        "  batch = 8\n  epochs = 1\n}",
    ),
    "E0212": Explanation(
        "a wrong number of values for the channels",
        "What is given per channel, such as `mean` and `std` of an input, is one number for all "
        "channels or one for each.",
        "net small {\n  input x: u8[3, 8, 8] (scale = 255, mean = (0.5, 0.5))\n  output relu(x)\n}",
        "net small {\n  input x: u8[3, 8, 8] (scale = 255, mean = 0.5)\n  output relu(x)\n}",
    ),
    "E0213": _entry(
        "a number is outside of what an operator allows",
        "The message names the argument and its range.",
        "y = x -> elu(alpha = -1.0)",
        "y = x -> elu(alpha = 1.0)",
    ),
    "E0214": _entry(
        "a reshape must keep the number of elements",
        "Reshaping moves nothing and drops nothing: the products of the extents are equal.",
        "y = x -> reshape(3, 21)",
        "y = x -> reshape(4, 16)",
    ),
    "E0215": _entry(
        "joined tensors differ",
        "`concat` joins channels, so all other extents of its inputs agree.",
        "y = concat(x, x -> maxpool(2x2))",
        "y = concat(x, x -> maxpool(3x3, stride = 1, pad = same))",
    ),
    "E0217": _entry(
        "a kernel cannot be used transposed",
        "`weights = transpose(layer)` reads the kernel of a named layer from its outputs to its "
        "inputs: a conv_transpose takes that of a conv, a conv that of a conv_transpose, a dense "
        "layer that of another one. Channels and size are those of the layer, and its `share`, "
        "`connect` and `kind` come along.",
        "a = x -> conv(4, 3x3)\n  y = a -> conv_transpose(1, 5x5, weights = transpose(a))",
        "a = x -> conv(4, 3x3)\n  y = a -> conv_transpose(1, 3x3, weights = transpose(a))",
    ),
    "E0218": _entry(
        "a kernel that cannot be",
        "A symmetric kernel has a centre, so its number of taps is odd; some tap of a local layer "
        "sees the input; and a kernel is a density where all outputs share it.",
        "y = x -> conv(4, 4x4, share = symmetric)",
        "y = x -> conv(4, 5x5, share = symmetric)",
    ),
    "E0219": _entry(
        "a table that does not fit the channels",
        "A table of connections has one row per output channel: the input channels, counted from "
        "0, that the output reads, each once and at least one.",
        "y = x -> conv(3, 3x3, connect = table([[0], [1], [2]]))",
        "y = x -> conv(3, 3x3, connect = table([[0], [1], [0, 1]]))",
        shape="2, 8, 8",
    ),
    "E0220": _entry(
        "a region does not lie inside the output",
        "A region is a range of output positions along each axis, from the first to the one behind "
        "the last; the message says how many there are.",
        "y = x -> conv(4, 3x3, region = rows(4, 8))",
        "y = x -> conv(4, 3x3, region = rows(3, 6))",
    ),
}

NAMES: dict[str, Explanation] = {
    "E0301": _entry(
        "an unknown name",
        "A name is an input, a layer set further up, a parameter, a block, an operator or a "
        "symbolic extent of an input.",
        "y = x -> rellu",
        "y = x -> relu",
    ),
    "E0302": _entry(
        "an unknown argument",
        "The operator or block has no argument of this name. `cnncc explain` and the language "
        "reference list those that it has.",
        "y = x -> conv(4, 3x3, padding = 1)",
        "y = x -> conv(4, 3x3, pad = 1)",
    ),
    "E0303": _entry(
        "an argument is missing",
        "Arguments without a default must be given.",
        "y = x -> conv(4)",
        "y = x -> conv(4, 3x3)",
    ),
    "E0304": _entry(
        "an argument has a value that it cannot have",
        "The message says what the argument takes.",
        "y = x -> conv(4, 3x3, stride = 0)",
        "y = x -> conv(4, 3x3, stride = 1)",
    ),
    "E0305": Explanation(
        "one name for two things",
        "Inputs, targets, outputs, arguments, parameters, nets and blocks are each named once.",
        "net small {\n  input x: f32[1, 8, 8]\n  input x: f32[1, 8, 8]\n  output relu(x)\n}",
        "net small {\n  input x: f32[1, 8, 8]\n  input z: f32[1, 8, 8]\n  output x + z\n}",
    ),
    "E0306": _entry(
        "a wrong number of arguments or inputs",
        "An operator takes so many tensors and so many values by position.",
        "y = relu(x, x)",
        "y = x -> relu",
    ),
    "E0307": _entry(
        "an argument is given by position and by name",
        "Each argument has one value.",
        "y = x -> conv(4, 3x3, size = 5x5)",
        "y = x -> conv(4, 3x3)",
    ),
    "E0308": _entry(
        "a value of the wrong kind",
        "A number, a word such as `same`, a size, a tensor and a truth value are different kinds, "
        "and each place takes some of them.",
        "y = if 3 then x else relu(x)",
        "y = if channels(x) == 3 then x else relu(x)",
    ),
    "E0309": _entry(
        "a division by zero",
        "Divisors are not zero.",
        "y = x -> conv(4 // 0, 3x3)",
        "y = x -> conv(4 // 2, 3x3)",
    ),
    "E0310": Explanation(
        "a net without input or output",
        "A net has at least one input and at least one output.",
        "net small {\n  input x: f32[1, 8, 8]\n}",
        "net small {\n  input x: f32[1, 8, 8]\n  output relu(x)\n}",
    ),
    "E0311": Explanation(
        "no such net",
        "A file may hold several nets: the last one is compiled, or the one named after a colon. "
        "A file with blocks only is a library to be imported.",
        "cnncc check nets.cnn:lenett",
        "cnncc check nets.cnn:lenet",
    ),
    "E0312": Explanation(
        "the arguments of a net",
        "Parameters of a net without a default must be given when it is compiled, and no others "
        "can be.",
        "cnncc check net.cnn --arg klasses=5",
        "cnncc check net.cnn --arg classes=5",
    ),
    "E0315": _entry(
        "a decision that needs a symbolic extent",
        "What depends on extents that only the data will tell cannot decide how the net is built. "
        "Extents can be added, multiplied, and divided by whole numbers.",
        "y = if extent(x, 0) > 8 then maxpool(x, 2x2) else x",
        "y = x",
        shape="1, H, W",
    ),
    "E0316": Explanation(
        "not a type",
        "A type is an element type and its extents, channels first and without the batch: "
        "`f32[3, 224, 224]`, `u8[3, H, W]`, `i64[10]`, and for targets `class[10]`.",
        "net small {\n  input x: float[1, 8, 8]\n  output relu(x)\n}",
        "net small {\n  input x: f32[1, 8, 8]\n  output relu(x)\n}",
    ),
    "E0317": _entry(
        "layers that share a kernel need it in one shape",
        "Operators that name the same `weights` use one kernel, so their channels and sizes agree.",
        "weights W\n  a = x -> conv(4, 3x3, weights = W)\n  y = a -> conv(4, 3x3, weights = W)",
        "weights W\n  a = x -> conv(1, 3x3, weights = W)\n  y = a -> conv(1, 3x3, weights = W)",
    ),
    "E0318": _entry(
        "a literal has the wrong shape",
        "Numbers that are given for a parameter stand in nested lists of exactly its shape.",
        "y = x -> conv(1, 2x2, init = [[1.0, 0.0], [0.0, 1.0]])",
        "y = x -> conv(1, 2x2, init = [[[[1.0, 0.0], [0.0, 1.0]]]])",
    ),
}
