"""Codes E0401 to E0899: imports, expectations, training, data and weight files, and what is known
only when arrays arrive."""

from __future__ import annotations

from cnncc.errors.explanation import Explanation

_NET = "net small {\n  input x: f32[1, 8, 8]\n  c = x -> conv(4, 3x3) -> relu\n"


def _net(line: str) -> str:
    return f"{_NET}  {line}\n  output c\n}}"


def _train(line: str) -> str:
    return (
        "net small {\n  input x: f32[1, 8, 8]\n  output y = x -> flatten -> dense(10)\n}\n"
        "train small {\n  target t: class[10]\n  loss = cross_entropy(y, t)\n"
        f"  {line}\n  batch = 8\n  epochs = 1\n}}"
    )


IMPORTS: dict[str, Explanation] = {
    "E0401": Explanation(
        "a file cannot be read",
        "The file exists, can be opened, and is text in UTF-8.",
        'import "no_such_file.cnn"',
        'import "blocks.cnn"',
    ),
    "E0402": Explanation(
        "an import leads out of the folder",
        "An import is a relative path with forward slashes to a `.cnn` file in the folder of the "
        "main file or below it; links to elsewhere are not followed. A network from a stranger can "
        "therefore read no other file.",
        'import "../secrets.cnn"',
        'import "parts/blocks.cnn"',
    ),
    "E0403": Explanation(
        "imports go in a circle",
        "A file cannot import itself, not even through others. Move what both need into a third.",
        'import "a.cnn"  # in a.cnn',
        'import "common.cnn"  # in a.cnn',
    ),
    "E0404": Explanation(
        "too many imports",
        "Imports are at most 8 deep and reach at most 100 files.",
        'import "level_9.cnn"  # in the eighth file of a chain',
        'import "blocks.cnn"',
    ),
    "E0405": Explanation(
        "a text without a file cannot import",
        "Imports are relative to the folder of the importing file, which a text given as a string "
        "does not have.",
        "cnncc.compile('import \"blocks.cnn\"\\nnet ...')",
        'cnncc.compile("net.cnn")',
    ),
}

CLAIMS: dict[str, Explanation] = {
    "E0501": Explanation(
        "an expectation does not hold",
        "`expect` states what must be true of the network; the message shows both sides with their "
        "values.",
        _net("expect params == 41"),
        _net("expect params == 40"),
    ),
    "E0502": Explanation(
        "not something to expect",
        "An expectation is true or false, made of numbers and of facts such as `params`, `macs`, "
        "`shape(c)` and `receptive_field(c)`.",
        _net("expect params"),
        _net("expect params == 40"),
    ),
    "E0503": Explanation(
        "a required fusion is not possible",
        "`require fused(a, b)` fails when inference does not have the layers in one kernel; the "
        "message gives the reason that `cnncc explain` lists for the edge between them.",
        "net small {\n  input x: f32[1, 8, 8]\n  a = x -> conv(4, 3x3)\n  b = a -> conv(4, 3x3)\n"
        "  require fused(a, b)\n  output b\n}",
        "net small {\n  input x: f32[1, 8, 8]\n  a = x -> conv(4, 3x3)\n  b = a -> relu\n"
        "  require fused(a, b)\n  output b\n}",
    ),
}

TRAINING: dict[str, Explanation] = {
    "E0601": Explanation(
        "training is incomplete",
        "To be trained a net needs a `train` block with a target, a loss and an optimizer.",
        _train("").replace("  loss = cross_entropy(y, t)\n", ""),
        _train("optimizer = sgd(lr = 0.1)"),
    ),
    "E0602": Explanation(
        "an unknown setting, optimizer or schedule",
        "The message lists what there is.",
        _train("optimizer = sdg(lr = 0.1)"),
        _train("optimizer = sgd(lr = 0.1)"),
    ),
    "E0603": Explanation(
        "a target that cannot be",
        "A target of classes has one number in its brackets, how many classes there are; one class "
        "per position is `i64[H, W]`.",
        _train("optimizer = sgd(lr = 0.1)").replace("class[10]", "class[10, 10]"),
        _train("optimizer = sgd(lr = 0.1)"),
    ),
    "E0604": Explanation(
        "the loss is not one number",
        "The loss is a tensor with one element: a loss such as `cross_entropy` or `mse`, or a "
        "weighted sum of several.",
        _train("optimizer = sgd(lr = 0.1)").replace("cross_entropy(y, t)", "y"),
        _train("optimizer = sgd(lr = 0.1)"),
    ),
    "E0605": Explanation(
        "a setting of the training is out of range",
        "The message says which numbers the setting takes.",
        _train("optimizer = sgd(lr = -0.1)"),
        _train("optimizer = sgd(lr = 0.1)"),
    ),
    "E0606": Explanation(
        "the loss is no longer a finite number",
        "Training stops at the step whose loss is infinite or not a number, before that step "
        "changes a parameter. The usual reasons are a learning rate that is too large, and data "
        "that are not scaled or not finite.",
        _train("optimizer = sgd(lr = 1000.0)"),
        _train("optimizer = sgd(lr = 0.01)"),
    ),
}

FILES: dict[str, Explanation] = {
    "E0701": Explanation(
        "no such data set, file or folder",
        "Data are a known name such as `digits`, or a path.",
        "cnncc train lenet_digits --data digitz",
        "cnncc train lenet_digits --data digits",
    ),
    "E0702": Explanation(
        "a file is not of its format",
        "The first bytes or the header of the file say something else than its name or its reader.",
        "cnncc train net.cnn --data photo.npz  # a renamed JPEG",
        "cnncc train net.cnn --data images.npz",
    ),
    "E0703": Explanation(
        "sizes do not agree",
        "The sizes in a header, the length of the file and the counts of samples and labels belong "
        "together. They are compared before anything is read.",
        "cnncc train net.cnn --data half_downloaded.npz",
        "cnncc data info complete.npz",
    ),
    "E0704": Explanation(
        "refused, because reading it could run code",
        "Pickles and object arrays are programs. Use the binary version of CIFAR, and safetensors "
        "or plain arrays for weights.",
        "cnncc train net.cnn --data cifar-10-batches-py",
        "cnncc train net.cnn --data cifar-10-batches-bin",
    ),
    "E0705": Explanation(
        "a file needs more memory than the limit",
        "What a file would take in memory is computed from its header first.",
        "cnncc data info enormous.npz",
        "cnncc data info part_1.npz",
    ),
    "E0706": Explanation(
        "a value is outside of its range",
        "Labels are less than the number of classes, fractions lie between 0 and 1, and so on.",
        "cnncc train net.cnn --data labels_up_to_12.npz  # ten classes",
        "cnncc train net.cnn --data labels_up_to_9.npz",
    ),
    "E0707": Explanation(
        "weights do not belong to this network",
        "Names, shapes and element types of the arrays in a file must be those of the network.",
        "cnncc run vgg16 --input image.npy --weights vgg19.safetensors",
        "cnncc run vgg19 --input image.npy --weights vgg19.safetensors",
    ),
    "E0708": Explanation(
        "a checkpoint is damaged or foreign",
        "A checkpoint carries a checksum and the identity of its network. The previous one is kept "
        "beside it.",
        "cnncc train net.cnn --data images.npz --resume truncated.ckpt",
        "cnncc train net.cnn --data images.npz --resume previous.ckpt",
    ),
    "E0709": Explanation(
        "an optional package is missing",
        "Some formats need a package that cnncc does not install by itself; the message names it.",
        "cnncc train net.cnn --data folder_of_jpegs",
        "pip install 'cnncc[images]'",
    ),
    "E0710": Explanation(
        "a file cannot be written",
        "The folder exists, can be written to, and has room.",
        "cnncc train net.cnn --data images.npz --save /read/only/w.safetensors",
        "cnncc train net.cnn --data images.npz --save w.safetensors",
    ),
}

BINDING: dict[str, Explanation] = {
    "E0801": Explanation(
        "the plan needs more memory than the limit",
        "All memory of a network is planned before the first byte is taken. The limit is half of "
        "the machine's, or what `--max-memory` says. A smaller batch needs less.",
        "cnncc eval vgg19 --weights w.safetensors --data images --max-memory 100M",
        "cnncc eval vgg19 --weights w.safetensors --data images --max-memory 4G",
    ),
    "E0802": Explanation(
        "an array does not fit the network",
        "Arrays are given as batch, channels, then the spatial extents, with the extents that the "
        "input declares.",
        "model(np.zeros((28, 28), np.float32))",
        "model(np.zeros((1, 1, 28, 28), np.float32))",
    ),
    "E0803": Explanation(
        "an array has the wrong element type",
        "The element type is the one that the input declares. It is not converted silently: bytes "
        "taken for floats between 0 and 1 would give a wrong answer, not an error.",
        "model(np.zeros((1, 1, 28, 28), np.uint8))  # input x: f32[1, 28, 28]",
        "model(np.zeros((1, 1, 28, 28), np.float32))",
    ),
    "E0804": Explanation(
        "these extents break a condition of the network",
        "A network with symbolic extents works for those that fulfil its conditions, such as an "
        "exact fit under pooling. `cnncc report` lists them.",
        "model(np.zeros((1, 3, 33, 32), np.float32))  # two pools of 2x2",
        "model(np.zeros((1, 3, 32, 32), np.float32))",
    ),
}

LOOKING: dict[str, Explanation] = {
    "E0810": Explanation(
        "no such layer or unit",
        "A layer is named as `cnncc report` names it; a unit is a layer with one index per axis, "
        "channels first, each less than its extent.",
        "cnncc trace lenet5_modern 'c3[16, 0, 0]'  # 16 channels",
        "cnncc trace lenet5_modern 'c3[15, 0, 0]'",
    ),
    "E0811": Explanation(
        "a layer without a matrix",
        "A layer equals a matrix when it is linear in one tensor of known extents, as convolutions "
        "are, and dense layers, average pools and paddings.",
        "cnncc matrix lenet5_modern c1.tanh",
        "cnncc matrix lenet5_modern c1",
    ),
    "E0812": Explanation(
        "a matrix, or a cone, beyond the limit",
        "What is written out entry by entry is limited. `cnncc report --table storage` tells the "
        "numbers of a matrix of any size.",
        "cnncc matrix vgg19 s1",
        "cnncc report vgg19 --table storage",
    ),
    "E0813": Explanation(
        "networks that cannot be converted into each other",
        "Weights go up the lattice of priors, from a convolution to a tiled, a local and a dense "
        "layer, with the same results, and down by averaging what is shared again.",
        "cnncc project small.cnn large.cnn --weights small.npz --save large.npz",
        "cnncc project local.cnn shared.cnn --weights local.npz --save shared.npz",
    ),
    "E0820": Explanation(
        "a network that a page cannot show",
        "The page of `cnncc view` computes a network again, in the browser: one f32 image goes in, "
        "and the layers are those that `cnncc view --help` lists. A network has at most 4 million "
        "weights and 262144 units there.",
        "cnncc view unet -o unet.html",
        "cnncc view lenet_digits -o lenet.html",
    ),
}
