"""Text to tree: every construct of the language, spans, and the shape of the grammar itself."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from lark import Lark, logger

from cnncc.errors import SpecError
from cnncc.syntax import dump, parse
from cnncc.syntax import tree as t
from cnncc.syntax.grammar import grammar, grammar_text

LENET = """
# LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998)
import "tables.cnn"

net lenet5(classes = 10) {
  input image: f32[1, 32, 32]     # channels, then 1, 2 or 3 spatial extents
  c1 = image -> conv(6, 5x5) -> stanh
  s2 = c1 -> avgpool(2x2, affine = per_map) -> sigmoid
  c3 = s2 -> conv(16, 5x5, connect = table(lenet5_c3)) -> stanh
  s4 = c3 -> avgpool(2x2, affine = per_map) -> sigmoid
  f6 = s4 -> conv(120, 5x5) -> stanh -> flatten -> dense(84) -> stanh
  output scores = f6 -> dense(classes)
  expect params == 60_850, receptive_field(s4) == 16
}
"""

BOTTLENECK = """
block bottleneck(x, width, stride = 1) {
  y    = x -> conv(width, 1x1, bias = none) -> batchnorm -> relu
           -> conv(width, 3x3, stride = stride, pad = 1, bias = none) -> batchnorm -> relu
           -> conv(4 * width, 1x1, bias = none) -> batchnorm
  skip = if stride == 1 and channels(x) == 4 * width then x
         else x -> conv(4 * width, 1x1, stride = stride, bias = none) -> batchnorm
  return relu(y + skip)
}

net resnet50(classes = 1000) {
  default fit = floor                # the published net drops the remainder
  input image: f32[3, 224, 224]
  output image -> bottleneck(64)
}
"""

PIXEL_LABELS = """
net pixel_labels(classes = 5) {      # recurrent pixel labelling: weights shared over steps
  input x: f32[3, H, W]              # symbolic extents: one compile serves all sizes
  weights U, V, R
  y = zeros(classes, H, W)
  repeat 3 { h = relu(conv(x, 16, 3x3, pad = same, weights = U, bias = none)
                      + conv(y, 16, 3x3, pad = same, weights = R, bias = none))
             y = conv(h, classes, 3x3, pad = same, weights = V, bias = none) }
  output softmax(y, axis = channel)
}
"""

TRAIN = """
train lenet5 {
  target label: class[classes]
  loss = cross_entropy(scores, label)
  optimizer = sgd(lr = 0.05, momentum = 0.9)  batch = 64  epochs = 10
}
"""


def expression(text: str) -> t.Expr:
    (net,) = parse(f"net n {{ y = {text} }}").nets
    (statement,) = net.body
    assert isinstance(statement, t.Assign)
    return statement.value


def statements(text: str, owner: str = "net n") -> tuple[t.Statement, ...]:
    (item,) = parse(f"{owner} {{ {text} }}").items
    assert not isinstance(item, t.Import)
    return item.body


def number(value: int) -> t.Argument:
    return t.Argument(None, t.Int(value))


def test_lenet():
    file = parse(LENET, "lenet.cnn")
    assert file.imports == (t.Import("tables.cnn"),)
    (net,) = file.nets
    assert (net.name, net.parameters) == ("lenet5", (t.Parameter("classes", t.Int(10)),))
    image, c1, _, c3, *_, scores, expect = net.body
    assert image == t.Input("image", t.TypeExpr("f32", (t.Int(1), t.Int(32), t.Int(32))))
    conv = t.Call("conv", (number(6), t.Argument(None, t.Size((5, 5)))))
    assert c1 == t.Assign("c1", t.Pipeline(t.Name("image"), (conv, t.Call("stanh"))))
    assert isinstance(c3, t.Assign)
    assert isinstance(c3.value, t.Pipeline)
    connect = c3.value.stages[0].arguments[2]
    table = t.Call("table", (t.Argument(None, t.Name("lenet5_c3")),))
    assert connect == t.Argument("connect", table)
    assert isinstance(scores, t.Output)
    assert scores.name == "scores"
    assert isinstance(expect, t.Expect)
    assert len(expect.conditions) == 2
    assert expect.conditions[0] == t.Binary("==", t.Name("params"), t.Int(60850))
    assert len(file.comments) == 2


def test_bottleneck():
    file = parse(BOTTLENECK)
    (block,) = file.blocks
    assert [p.name for p in block.parameters] == ["x", "width", "stride"]
    assert [p.default for p in block.parameters] == [None, None, t.Int(1)]
    y, skip, result = block.body
    assert isinstance(y, t.Assign)
    assert isinstance(y.value, t.Pipeline)
    assert [stage.name for stage in y.value.stages] == [
        *("conv", "batchnorm", "relu"), *("conv", "batchnorm", "relu"), *("conv", "batchnorm"),
    ]  # fmt: skip
    assert isinstance(skip, t.Assign)
    assert isinstance(skip.value, t.If)
    assert skip.value.then == t.Name("x")
    assert isinstance(skip.value.otherwise, t.Pipeline)
    total = t.Binary("+", t.Name("y"), t.Name("skip"))
    assert result == t.Return(t.Call("relu", (t.Argument(None, total),)))
    assert file.nets[0].body[0] == t.Default("fit", t.Name("floor"))


def test_pixel_labels():
    (net,) = parse(PIXEL_LABELS).nets
    _, weights, _, repeat, output = net.body
    assert weights == t.Weights((t.Name("U"), t.Name("V"), t.Name("R")))
    assert isinstance(repeat, t.Repeat)
    assert (repeat.count, repeat.index) == (t.Int(3), None)
    assert [s.name for s in repeat.body if isinstance(s, t.Assign)] == ["h", "y"]
    assert isinstance(output, t.Output)
    assert output.name is None


def test_train_and_several_statements_on_a_line():
    (train,) = parse(TRAIN).trains
    assert train.net == "lenet5"
    target, loss, optimizer, batch, epochs = train.body
    assert target == t.Target("label", t.TypeExpr("class", (t.Name("classes"),)))
    assert isinstance(loss, t.Assign)
    assert loss.name == "loss"
    assert isinstance(optimizer, t.Assign)
    assert isinstance(optimizer.value, t.Call)
    assert (batch, epochs) == (t.Assign("batch", t.Int(64)), t.Assign("epochs", t.Int(10)))


def test_statements():
    given = (t.Argument("scale", t.Int(255)), t.Argument("mean", t.Tuple((t.Float(0.5),))))
    u8 = t.TypeExpr("u8", (t.Int(3), t.Name("H"), t.Name("W")))
    assert statements("input x: u8[3, H, W] (scale = 255, mean = (0.5,))") == (
        t.Input("x", u8, given),
    )
    assert statements("output y") == (t.Output(None, t.Name("y")),)
    assert statements("output y = x") == (t.Output("y", t.Name("x")),)
    assert statements("output y z = x") == (
        t.Output(None, t.Name("y")),
        t.Assign("z", t.Name("x")),
    )
    fused = t.Call("fused", tuple(t.Argument(None, t.Name(n)) for n in "abc"))
    assert statements("require fused(a, b, c)") == (t.Require((fused,)),)
    assert statements("nofuse(a, b)") == (t.NoFuse((t.Name("a"), t.Name("b"))),)
    assert statements("repeat i in 2 * n { y = i }") == (
        t.Repeat(
            "i",
            t.Binary("*", t.Int(2), t.Name("n")),
            (t.Assign("y", t.Name("i")),),
        ),
    )
    assert statements("target y: f32[10]", "train n") == (
        t.Target("y", t.TypeExpr("f32", (t.Int(10),))),
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1_000", t.Int(1000)),
        ("0.5", t.Float(0.5)),
        ("1e-3", t.Float(0.001)),
        ("2.5E+2", t.Float(250.0)),
        ("3x3", t.Size((3, 3))),
        ("5x5x5", t.Size((5, 5, 5))),
        ("x3", t.Name("x3")),
        ("true", t.Bool(True)),
        ("false", t.Bool(False)),
        ("[]", t.List(())),
        ("[1, [2, 3],]", t.List((t.Int(1), t.List((t.Int(2), t.Int(3)))))),
        ("(a)", t.Name("a")),
        ("(a,)", t.Tuple((t.Name("a"),))),
        ("(k, k)", t.Tuple((t.Name("k"), t.Name("k")))),
        ("(lo, hi,)", t.Tuple((t.Name("lo"), t.Name("hi")))),
        ("f()", t.Call("f")),
        ("f(1,)", t.Call("f", (number(1),))),
        ("f(weights = U)", t.Call("f", (t.Argument("weights", t.Name("U")),))),
        ("- -a", t.Unary("-", t.Unary("-", t.Name("a")))),
    ],
)
def test_literals_and_calls(text, value):
    assert expression(text) == value


A, B, C = t.Name("a"), t.Name("b"), t.Name("c")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + b * c", t.Binary("+", A, t.Binary("*", B, C))),
        ("a - b - c", t.Binary("-", t.Binary("-", A, B), C)),
        ("a // b % c", t.Binary("%", t.Binary("//", A, B), C)),
        ("-a * b", t.Binary("*", t.Unary("-", A), B)),
        ("a + b < c", t.Binary("<", t.Binary("+", A, B), C)),
        ("not a == b", t.Unary("not", t.Binary("==", A, B))),
        ("a or b and c", t.Binary("or", A, t.Binary("and", B, C))),
        ("not a and b", t.Binary("and", t.Unary("not", A), B)),
        ("a + b -> f", t.Pipeline(t.Binary("+", A, B), (t.Call("f"),))),
        ("a -> f(1) -> g", t.Pipeline(A, (t.Call("f", (number(1),)), t.Call("g")))),
        ("(a -> f) -> g", t.Pipeline(A, (t.Call("f"), t.Call("g")))),
        ("(a -> f) + b", t.Binary("+", t.Pipeline(A, (t.Call("f"),)), B)),
        ("if a then b else c -> f", t.If(A, B, t.Pipeline(C, (t.Call("f"),)))),
        ("if a then b else if b then a else c", t.If(A, B, t.If(B, A, C))),
        ("f(if a then b else c)", t.Call("f", (t.Argument(None, t.If(A, B, C)),))),
    ],
)
def test_precedence(text, value):
    assert expression(text) == value


def test_line_ends_mean_nothing():
    text = "net n(a = 1) { input x: f32[1, 2] y = x -> f(1, k = 2) output y }"
    spread = "\r\n\t".join(text.replace("(", " ( ").replace(",", " , ").split(" "))
    assert parse(spread) == parse(text)
    assert parse("\ufeff" + text) == parse(text)
    assert statements("y = a\n -> f\n z = b\n + c\n - a") == (
        t.Assign("y", t.Pipeline(A, (t.Call("f"),))),
        t.Assign("z", t.Binary("-", t.Binary("+", B, C), A)),
    )


def test_spans_point_at_the_text():
    file = parse(LENET + BOTTLENECK + PIXEL_LABELS + TRAIN, "all.cnn")
    for node in t.walk(file):
        match node:
            case t.Name() | t.Call() | t.Assign():
                assert node.span.text.startswith(node.name)
            case t.Int():
                assert int(node.span.text) == node.value
            case t.Size():
                assert node.span.text == "x".join(map(str, node.extents))
            case t.Binary():
                assert node.operator_span.text == node.operator
                assert node.left.span.end < node.operator_span.start < node.right.span.start
            case t.Net() | t.Block() | t.Train() | t.Repeat():
                assert node.body_span.text[0] + node.body_span.text[-1] == "{}"
    (net, _, _), (block,) = file.nets, file.blocks
    assert str(net.name_span) == "all.cnn:5:5"
    assert (net.span.line, net.span.end_line, net.span.end_column) == (5, 14, 2)
    assert block.parameters[2].span.text == "stride = 1"
    for node in t.walk(file):
        for child in t.children(node):
            assert node.span.start <= child.span.start <= child.span.end <= node.span.end


def test_equality_ignores_places_and_spelling():
    assert expression("1_0 + x") == expression("10   +   (x)")
    assert expression("1e-3") == expression("0.001")
    assert expression("1") != expression("1.0")
    assert expression("1") != expression("true")


def test_dump():
    tree = parse("net n {\n  y = x -> f(1, k = 3x3)\n}")
    assert (
        dump(tree)
        == """\
File @1:1
  items
    Net @1:1 name='n'
      body
        Assign @2:3 name='y'
          value
            Pipeline @2:7
              head
                Name @2:7 name='x'
              stages
                Call @2:12 name='f'
                  arguments
                    Argument @2:14 name=None
                      value
                        Int @2:14 value=1
                    Argument @2:17 name='k'
                      value
                        Size @2:21 extents=(3, 3)
"""
    )


def test_the_grammar_has_no_conflicts(caplog):
    logger.setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG, logger=logger.name):
        Lark(grammar_text(), parser="lalr", lexer="basic", start="file", debug=True)
    logger.setLevel(logging.CRITICAL)
    assert not [r.message for r in caplog.records if "conflict" in r.message.lower()]


def test_the_grammar_is_the_one_of_the_checkout():
    checkout = Path(__file__).parents[2] / "grammar" / "cnn.lark"
    assert grammar_text() == checkout.read_text(encoding="utf-8")
    assert grammar() is grammar()


@pytest.mark.parametrize("word", sorted(set(grammar().keywords) - {"true", "false"}))
def test_reserved_words_name_arguments_but_no_values(word):
    assert expression(f"f({word} = 1)") == t.Call("f", (t.Argument(word, t.Int(1)),))
    with pytest.raises(SpecError):
        expression(f"f({word})")


def test_tables():
    text = "table t { [0, 1], 2 }\ntable empty { }\nnet table { y = f(connect = table(t)) }"
    one, empty = parse(text).tables
    assert one == t.Table("t", (t.List((t.Int(0), t.Int(1))), t.Int(2)))
    assert empty == t.Table("empty", ())
    assert one.name_span.text == "t"
    call = t.Call("table", (t.Argument(None, t.Name("t")),))
    (net,) = parse(text).nets
    assert net.name == "table"
    assert net.body[0] == t.Assign("y", t.Call("f", (t.Argument("connect", call),)))


def test_table_is_an_ordinary_name_inside_brackets():
    assert expression("table + 1") == t.Binary("+", t.Name("table"), t.Int(1))
    with pytest.raises(SpecError, match="expected a name"):
        parse("table { [0] }")
