"""From text to graph: what statements and values mean."""

import pytest

from cnncc.compiler import front
from cnncc.errors import SpecError
from cnncc.graph.sources import Constant, Input, Parameter
from cnncc.tensor import DType, TensorType, symbol


def net(body: str, shape: str = "3, 8, 8", head: str = "", params: str = "") -> str:
    return f"{head}\nnet n({params}) {{\n input x: f32[{shape}]\n {body}\n}}\n"


def shape_of(body: str, **kinds: str) -> list[object]:
    graph = front(net(body, **kinds)).graph
    return list(graph[graph.outputs[0][1]].type.shape)


def codes(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        front(text)
    return [d.code for d in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("expression", "channels"),
    [
        ("3 * 4 + 2", 14),
        ("7 // 2", 3),
        ("7 % 4", 3),
        ("8 / 2", 4),
        ("-2 + 5", 3),
        ("channels(x) * 2", 6),
        ("extent(x, 0) + extent(x, 1)", 16),
        ("if 2 < 3 and not (1 == 2) then 5 else undefined_name", 5),
        ("if false or 3 != 3 then 1 // 0 else 6", 6),
        ("if shape(x) == [3, 8, 8] then 2 else 1", 2),
    ],
)
def test_values_while_the_network_is_built(expression: str, channels: int) -> None:
    assert shape_of(f"output y = x -> conv({expression}, 1x1)")[0] == channels


def test_pipelines_and_calls_mean_the_same() -> None:
    piped = front(net("output y = x -> conv(4, 3x3) -> relu")).graph
    called = front(net("output y = relu(conv(x, 4, 3x3))")).graph
    assert piped.nodes == called.nodes


def test_a_block_has_defaults_and_keeps_its_names_to_itself() -> None:
    head = "block b(x, width, size = width - 1) { k = size\n return x -> conv(width, (k, k)) }"
    assert shape_of("k = 1 output y = b(x, 4) -> conv(k, 1x1)", head=head) == [1, 6, 6]
    assert codes(net("y = b(x, 4) output z = y -> conv(size, 1x1)", head=head)) == ["E0301"]


def test_blocks_do_not_see_the_net() -> None:
    head = "block b(x) { return x -> conv(width, 1x1) }"
    assert codes(net("width = 4 output y = b(x)", head=head)) == ["E0301"]


def test_repeat_with_an_index() -> None:
    assert shape_of("y = x repeat i in 3 { y = y -> conv(i + 2, 1x1) } output y")[0] == 4


def test_repeat_of_nothing() -> None:
    assert shape_of("y = x repeat 0 { y = relu(y) } output y") == [3, 8, 8]


def test_net_arguments() -> None:
    text = net("output y = x -> conv(width, 1x1)", params="width = 4")
    assert front(text).graph["y"].type.channels == 4
    changed = front(text, arguments={"width": 9})
    assert changed.graph["y"].type.channels == 9
    assert changed.module.arguments == (("width", 9),)


def test_net_arguments_are_checked() -> None:
    text = net("output y = x -> conv(width, 1x1)", params="width")
    for arguments in ({}, {"widht": 4, "width": 4}):
        with pytest.raises(SpecError) as caught:
            front(text, arguments=arguments)
        assert [d.code for d in caught.value.diagnostics] == ["E0312"]
    with pytest.raises(TypeError, match="width must be a number"):
        front(text, arguments={"width": "4"})  # type: ignore[dict-item]
    with pytest.raises(SpecError, match="below 2\\^63"):
        front(text, arguments={"width": 10**30})


def test_the_last_net_is_the_default_and_any_can_be_picked(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "two.cnn"
    path.write_text("net a { input x: f32[1]\n output x }\nnet b { input x: f32[2]\n output x }\n")
    assert front(path).graph.name == "b"
    assert front(f"{path}:a").graph.name == "a"
    with pytest.raises(SpecError, match="no net `c`"):
        front(f"{path}:c")


def test_default_arguments_reach_into_blocks() -> None:
    head = "block b(x) { return x -> maxpool(3x3) }"
    assert shape_of("default fit = floor output y = b(x)", head=head) == [3, 2, 2]
    assert codes(net("output y = b(x)", head=head)) == ["E0202"]
    own = "block b(x) { default fit = floor\n return x -> maxpool(3x3) }"
    assert shape_of("output y = b(x)", head=own) == [3, 2, 2]


def test_an_argument_of_its_own_wins_over_the_default() -> None:
    assert codes(net("default fit = floor output y = x -> maxpool(3x3, fit = exact)")) == ["E0202"]


def test_symbolic_extents() -> None:
    graph = front(net("output y = x -> conv(4, 3x3)", shape="3, H, W")).graph
    assert graph["y"].type.spatial == (symbol("H") - 2, symbol("W") - 2)


def test_exact_fit_of_a_symbolic_extent_is_a_condition() -> None:
    graph = front(net("output y = x -> maxpool(2x2)", shape="3, H, H")).graph
    assert {(str(c.extent), c.divisor) for c in graph.conditions} == {("H - 2", 2)}
    assert {c.origin.layer for c in graph.conditions} == {"y"}


def test_extents_may_be_formulas_of_earlier_ones() -> None:
    graph = front(net("output y = relu(x)", shape="3, H, 2 * H + 1")).graph
    assert graph["x"].type.shape == (3, symbol("H"), 2 * symbol("H") + 1)


def test_zeros_are_a_constant_for_every_sample() -> None:
    graph = front(net("y = zeros(2, H, W) output z = concat(x, y)", shape="3, H, W")).graph
    node = graph["y"]
    assert isinstance(node.op, Constant)
    assert node.op.value == 0.0
    assert node.type == TensorType(DType.F32, (2, symbol("H"), symbol("W")))


def test_numbers_beside_tensors_are_constants() -> None:
    graph = front(net("output y = 2 * x - 1")).graph
    constants = [n.op.value for n in graph.nodes if isinstance(n.op, Constant)]
    assert constants == [2.0, 1.0]
    assert [n.op.name for n in graph.nodes if n.inputs] == ["mul", "sub"]
    assert front(net("output y = x / 4")).graph["y.number"].op == Constant(
        TensorType(DType.F32, (1,), batched=False), 0.25
    )


def test_kernels_are_shared_over_steps() -> None:
    # Recurrent pixel labelling (Goodfellow et al., figure 9.17): 1872 weights for any steps.
    body = """weights U, V, R
      y = zeros(5, H, W)
      repeat 3 { h = relu(conv(x, 16, 3x3, pad = same, weights = U, bias = none)
                        + conv(y, 16, 3x3, pad = same, weights = R, bias = none))
                 y = conv(h, 5, 3x3, pad = same, weights = V, bias = none) }
      output softmax(y)
      expect params == 1872"""
    graph = front(net(body, shape="3, H, W")).graph
    assert [n.name for n in graph.of("parameter")] == ["U", "R", "V"]


def test_pixels_are_normalised_behind_the_input() -> None:
    text = "net n { input p: u8[3, 8, 8] (scale = 0.5, mean = (1, 2, 3))\n output y = relu(p) }"
    graph = front(text).graph
    assert graph["p"].type.dtype is DType.U8
    assert graph["p.normalize"].inputs == ("p",)
    assert graph["y"].inputs == ("p.normalize",)
    assert graph["y"].type.dtype is DType.F32


def test_pixels_without_settings_become_numbers() -> None:
    graph = front("net n { input p: u8[3, 8, 8]\n output y = relu(p) }").graph
    assert graph["p.normalize"].type == TensorType(DType.F32, (3, 8, 8))


def test_indices_stay_as_they_are() -> None:
    graph = front("net n { input t: i64[7]\n output y = t -> embed(10, 4) }").graph
    assert graph["y"].type.shape == (4, 7)


def test_outputs_have_public_names() -> None:
    graph = front(net("a = relu(x) output a output b = tanh(x) output softmax(x)")).graph
    assert graph.outputs == (("a", "a"), ("b", "b"), ("output", "softmax_1"))


def test_parameters_know_whether_they_are_trained() -> None:
    body = "output y = x -> conv(4, 1x1, frozen = true) -> batchnorm"
    graph = front(net(body)).graph
    kinds = {n.name: n.op.kind for n in graph.nodes if isinstance(n.op, Parameter)}
    assert kinds["y.conv.weight"] == "frozen"
    assert kinds["y.batchnorm.weight"] == "trained"
    assert kinds["y.batchnorm.running_mean"] == "state"


def test_the_module_lists_what_names_stand_for() -> None:
    body = "c = x -> conv(4, 3x3) -> relu p = c -> maxpool(2x2) output y = relu(p)\n"
    module = front(net(body + "require fused(c, p) nofuse(y)")).module
    assert module.inputs == ("x",)
    assert module.layers["c"] == ("c", "c.relu")
    (requirement,) = module.requirements
    assert requirement.layers == (("c", ("c", "c.relu")), ("p", ("p",)))
    assert module.nofuse == ("y",)


def test_requirements_in_blocks_have_final_names() -> None:
    head = "block b(x) { c = x -> conv(4, 1x1) -> relu\n require fused(c)\n return c }"
    module = front(net("output s = b(x)", head=head)).module
    assert module.requirements[0].layers == (("c", ("s.c", "s.c.relu")),)


def test_all_mistakes_are_reported_once_and_in_order() -> None:
    body = "a = x -> convv(1) b = a -> relu(2) c = b + 1 output d = c -> conv(0, 3x3) e = unknown"
    assert codes(net(body)) == ["E0301", "E0306", "E0304", "E0301"]


def test_a_mistake_in_a_block_is_reported_once() -> None:
    head = "block b(x) { return x -> conv(0, 1x1) }"
    assert codes(net("output y = x -> b -> b -> b", head=head)) == ["E0304"]


def test_inputs_have_roles() -> None:
    text = net("output y = x -> flatten -> dense(2) -> dropout(0.1)")
    text += "train n { target t: class[2]\n loss = cross_entropy(y, t)\n optimizer = adam() }"
    plain, trained = front(text).graph, front(text, train=True).graph
    roles = {n.name: n.op.role for n in trained.nodes if isinstance(n.op, Input)}
    assert roles == {"random.key": "random", "x": "data", "t": "target"}
    assert [n.name for n in plain.of("input")] == ["x"]


def test_the_key_of_random_numbers_exists_only_where_it_is_used() -> None:
    text = net("output y = x -> flatten -> dense(2)")
    text += "train n { target t: class[2]\n loss = cross_entropy(y, t)\n optimizer = adam() }"
    assert [n.name for n in front(text, train=True).graph.of("input")] == ["x", "t"]
