"""Names of layers and parameters: weight files are read by them, so each rule has a test."""

from cnncc.compiler import front


def names(body: str, blocks: str = "", train: bool = False) -> list[str]:
    """The nodes of a net, inputs left out; `%` marks parameters."""
    text = f"{blocks}\nnet n {{\n input x: f32[4, 8, 8]\n {body}\n}}\n"
    graph = front(text, train=train).graph
    kinds = {"parameter": "%", "input": None}
    return [
        f"{mark}{n.name}" for n in graph.nodes if (mark := kinds.get(n.op.name, "")) is not None
    ]


def test_the_only_layer_with_parameters_has_the_name() -> None:
    assert names("output c = x -> conv(2, 3x3) -> tanh") == [
        "%c.weight", "%c.bias", "c", "c.tanh",
    ]  # fmt: skip
    assert names("output c = x -> relu -> conv(2, 3x3, bias = none)") == [
        "c.relu",
        "%c.weight",
        "c",
    ]


def test_without_parameters_the_last_layer_has_the_name() -> None:
    assert names("output p = x -> relu -> maxpool(2x2)") == ["p.relu", "p"]


def test_dropout_never_has_the_name() -> None:
    assert names("output p = x -> relu -> dropout(0.5)") == ["p"]


def test_several_layers_with_parameters_are_numbered() -> None:
    body = "output c = x -> conv(2, 3x3, bias = none) -> relu -> conv(2, 3x3, bias = none) -> relu"
    assert names(body) == [
        "%c.conv.weight", "c.conv", "c.relu", "%c.conv_2.weight", "c.conv_2", "c.relu_2",
    ]  # fmt: skip


def test_nested_calls_belong_to_the_statement() -> None:
    assert names("output c = relu(conv(x, 4, 1x1, bias = none) + x)") == [
        "%c.weight", "c", "c.add", "c.relu",
    ]  # fmt: skip


def test_unnamed_layers_are_numbered_by_operator() -> None:
    assert names("a = relu(x) output softmax(a)") == ["a", "softmax_1"]
    assert names("output relu(x + relu(x))") == ["relu_1", "add_1", "relu_2"]


def test_assigned_names_are_kept_free() -> None:
    assert names("output b = relu(x) output relu_1 = tanh(b) output relu(x)") == [
        "b", "relu_1", "relu_2",
    ]  # fmt: skip


BLOCK = "block unit(x) { main = x -> conv(4, 1x1, bias = none) -> relu\n return relu(main + x) }"


def test_a_block_alone_takes_the_name() -> None:
    assert names("output u = unit(x)", BLOCK) == [
        "%u.main.weight", "u.main", "u.main.relu", "u.add_1", "u.relu_1",
    ]  # fmt: skip


def test_blocks_in_a_row_keep_their_own_names() -> None:
    found = names("output u = x -> unit -> unit", BLOCK)
    assert [n for n in found if n.startswith("%")] == [
        "%u.unit.main.weight", "%u.unit_2.main.weight",
    ]  # fmt: skip


def test_an_unnamed_block_is_numbered() -> None:
    assert "%unit_1.main.weight" in names("output unit(x)", BLOCK)


def test_a_block_beside_a_pool_takes_the_name() -> None:
    assert names("output u = x -> unit -> maxpool(2x2)", BLOCK)[-1] == "u.maxpool"


def test_blocks_in_blocks() -> None:
    outer = BLOCK + "\nblock pair(x) { a = unit(x)\n b = unit(a)\n return b }"
    found = names("output s = x -> pair", outer)
    assert [n for n in found if n.startswith("%")] == ["%s.a.main.weight", "%s.b.main.weight"]


def test_repeat_counts_on() -> None:
    body = "y = x repeat 3 { y = y -> conv(4, 1x1, bias = none) } output y"
    assert names(body) == ["%y.weight", "y", "%y_2.weight", "y_2", "%y_3.weight", "y_3"]


def test_a_second_name_for_a_layer_makes_nothing() -> None:
    assert names("a = relu(x) b = a output b") == ["a"]


def test_a_shared_kernel_has_its_own_name() -> None:
    body = "weights U y = x repeat 2 { y = y -> conv(4, 3x3, pad = 1, weights = U) } output y"
    assert names(body) == ["%U", "%y.bias", "y", "%y_2.bias", "y_2"]


def test_shared_kernels_of_blocks_are_apart() -> None:
    block = "block twice(x) { weights U\n a = conv(x, 4, 1x1, weights = U, bias = none)\n"
    block += " b = conv(a, 4, 1x1, weights = U, bias = none)\n return b }"
    found = names("p = twice(x) output q = twice(p)", block)
    assert [n for n in found if n.startswith("%")] == ["%p.U", "%q.U"]


def test_training_and_inference_name_parameters_alike() -> None:
    body = "output s = x -> conv(2, 3x3) -> batchnorm -> dropout(0.5) -> flatten -> dense(3)\n}\n"
    body += "train n { target t: class[3]\n loss = cross_entropy(s, t)\n optimizer = adam()"
    plain, trained = ([n for n in names(body, train=x) if n[0] == "%"] for x in (False, True))
    assert plain == trained


def test_origins_follow_the_names() -> None:
    graph = front(f"{BLOCK}\nnet n {{ input x: f32[4, 8, 8]\n output u = unit(x) }}").graph
    assert graph["u.main.weight"].origin.layer == "u.main"
    assert graph["u.main.relu"].origin.layer == "u.main.relu"
    span = graph["u.main"].origin.span
    assert span is not None
    assert span.text == "conv(4, 1x1, bias = none)"
