"""The branch of an `If` that runs takes its place."""

from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import helper

from phantom_jax.tracing.onnx.operators import graphs_of, node_name

Evaluate = Callable[[onnx.ModelProto, list[str]], Mapping[str, Any]]  # values of tensors, by name


def take_branches(model: onnx.ModelProto, evaluate: Evaluate) -> None:
    """Replaces each `If` of a model, also in branches taken, by the nodes of the branch that runs.

    Args:
        model: Is changed.
        evaluate: Runs it, and returns the values of the tensors that are asked for.
    """
    count = 0
    while any(node.op_type == "If" for node in model.graph.node):
        conditions = [node.input[0] for node in model.graph.node if node.op_type == "If"]
        values = evaluate(model, conditions)
        nodes: list[onnx.NodeProto] = []
        for node in model.graph.node:
            if node.op_type != "If":
                nodes.append(node)
                continue
            count += 1
            nodes += _branch(model, node, bool(values[node.input[0]]), f"branch {count}: ")
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def _branch(model: onnx.ModelProto, node: onnx.NodeProto, is_true: bool, prefix: str) -> list[onnx.NodeProto]:
    """Returns the nodes of a branch under names of their own, and adds its initializers to the model."""
    chosen = "then_branch" if is_true else "else_branch"
    graph = next(attribute.g for attribute in node.attribute if attribute.name == chosen)
    names = {name for inner in graph.node for name in inner.output if name}
    names |= {initializer.name for initializer in graph.initializer}
    renamed = {name: prefix + name for name in names}
    for initializer in graph.initializer:
        model.graph.initializer.add().CopyFrom(initializer)
        model.graph.initializer[-1].name = renamed[initializer.name]
    nodes = []
    for inner in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        copy.name = node_name(inner)
        _rename(copy, renamed)
        nodes.append(copy)
    outputs = [
        helper.make_node("Identity", [renamed.get(inner.name, inner.name)], [outer])
        for inner, outer in zip(graph.output, node.output, strict=True)
    ]
    return [*nodes, *outputs]


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Gives the tensors that a node reads and writes, also in its bodies, other names."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in graphs_of(node):
        own = {info.name for info in graph.input} | {name for inner in graph.node for name in inner.output}
        own |= {initializer.name for initializer in graph.initializer}
        outer = {name: new for name, new in names.items() if name not in own}
        for inner in graph.node:
            _rename(inner, outer)
        for output in graph.output:
            output.name = outer.get(output.name, output.name)
