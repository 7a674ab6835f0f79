"""In which ways are the rules broken, to see that the tests notice?

A mutation replaces one passage of a file, whose path is from `oryxstate/_effects`, and which must
hold it once.
"""

from __future__ import annotations

from typing import NamedTuple

from mutations_semantics import BROKEN, FOUND


class Mutation(NamedTuple):
    """One rule broken on purpose, and some tests that must fail then.

    Attributes:
        what: what is broken, in words.
        file: its path from `oryxstate/_effects`.
        old: the passage that is replaced.
        new: what stands there instead.
        tests: arguments of pytest.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


TABLE = "tests/test_transformations.py"
ALONE = "tests/test_transformations_alone.py"
ERRORS = "tests/test_effects_errors.py"
INSIDE = "tests/test_gradients_inside.py"
NESTED = "tests/test_gradients_nested.py"
ROOTS = "tests/test_root_transformed.py"
REDUCE = "tests/test_reduce.py"
EQUATIONS = "tests/test_equations.py"
CACHING = "tests/test_caching.py"
LEAKS = "tests/test_leaks.py"
FUNCTIONS = "tests/test_functions.py", "tests/test_functions_nested.py"
DECLARED = "tests/test_functions_inside.py"


def _lost(file: str, row: str, new: str = "new") -> Mutation:
    passages = f"state.assign({new})", "state.assign(state.changing)"
    return Mutation(f"{file} loses the update", f"rules/{file}.py", *passages, (TABLE, "-k", row))


MUTATIONS = [
    # Each rule loses what was written.
    _lost("jit", "jit"),
    _lost("scan", "scan"),
    _lost("while_loop", "while", "carry[1]"),
    _lost("cond", "cond"),
    _lost("remat", "checkpoint"),
    _lost("custom_derivatives", "custom_jvp"),
    _lost("custom_vmap", "custom_vmap"),
    _lost("linear_solve", "custom_linear_solve"),
    _lost("shard_map", "shard_map"),
    # Calls.
    Mutation(
        "jit updates twice",
        "rules/jit.py",
        "return run(fixed, changing, *args)",
        "return run(fixed, run(fixed, changing, *args)[1], *args)",
        (TABLE, "-k", "jit"),
    ),
    Mutation(
        "jit forgets to inline",
        "rules/jit.py",
        'inline=params["inline"]',
        "inline=False",
        (EQUATIONS,),
    ),
    Mutation(
        "jit forgets the name",
        "rules/jit.py",
        'named.__name__ = named.__qualname__ = params["name"]',
        "pass",
        (EQUATIONS,),
    ),
    Mutation(
        "jit forgets shardings of inputs",
        "rules/jit.py",
        'if any(map(_is_sharding, params["in_shardings"])):',
        "if False:",
        (EQUATIONS,),
    ),
    Mutation(
        "jit forgets shardings of outputs",
        "rules/jit.py",
        'if any(map(_is_sharding, params["out_shardings"])):',
        "if False:",
        (EQUATIONS,),
    ),
    Mutation(
        "checkpoint forgets its policy",
        "rules/remat.py",
        'policy=params["policy"], prevent_cse',
        "policy=None, prevent_cse",
        (EQUATIONS,),
    ),
    Mutation(
        "checkpoint forgets prevent_cse",
        "rules/remat.py",
        "prevent_cse=prevent_cse\n",
        "prevent_cse=True\n",
        (EQUATIONS,),
    ),
    # Loops and branches.
    Mutation(
        "scan forgets the direction",
        "rules/scan.py",
        'reverse=params["reverse"]',
        "reverse=False",
        (TABLE, "-k", "scan"),
    ),
    Mutation(
        "scan forgets to unroll",
        "rules/scan.py",
        'unroll=params["unroll"]',
        "unroll=1",
        (EQUATIONS,),
    ),
    Mutation(
        "scan hands on the old state",
        "rules/scan.py",
        "out, changing = run(",
        "out, _ = run(",
        (TABLE, "-k", "scan"),
    ),
    Mutation(
        "scan takes a slice for the whole",
        "rules/scan.py",
        "*(SLICE for _ in xs)",
        "*xs",
        (ERRORS, "-k", "scanned"),
    ),
    Mutation(
        "scan hides declarations",
        "rules/scan.py",
        'state.refuse_fresh("lax.scan")',
        "pass",
        (DECLARED, "-k", "refused"),
    ),
    Mutation(
        "while hands on the old state",
        "rules/while_loop.py",
        "carried, changing = run(",
        "carried, _ = run(",
        (TABLE, "-k", "while"),
    ),
    Mutation(
        "the predicate of while is not looked at",
        "rules/while_loop.py",
        "if not (touches_state(cond_jaxpr) or touches_state(body_jaxpr)):",
        "if not touches_state(body_jaxpr):",
        (TABLE, "-k", "only"),
    ),
    Mutation(
        "the predicate of while may write",
        "rules/while_loop.py",
        "    _refuse_writes(cond_jaxpr)\n",
        "",
        (ERRORS, "-k", "predicate"),
    ),
    Mutation(
        "branches are swapped",
        "rules/cond.py",
        "for branch in branches]",
        "for branch in branches[::-1]]",
        (TABLE, "-k", "cond"),
    ),
    Mutation(
        "only the first branch is asked for its state",
        "rules/cond.py",
        "for branch in branches))",
        "for branch in branches[:1]))",
        (ALONE, "-k", "branches"),
    ),
    # Custom rules.
    Mutation(
        "a custom derivative keeps the writes of its rule",
        "rules/custom_derivatives.py",
        "                with _frames.replay(held):\n",
        "                if True:\n",
        (TABLE, "-k", "nested and custom_jvp"),
    ),
    Mutation(
        "custom_jvp has no tangent of the new state",
        "rules/custom_derivatives.py",
        "return (out, new), (out_dot, new_dot)",
        "return (out, new), (out_dot, jax.tree.map(lambda x: SymbolicZero("
        "jax.typeof(x).to_tangent_aval()), new))",
        (INSIDE, "-k", "custom_jvp"),
    ),
    Mutation(
        "custom_vjp has no cotangent of the new state",
        "rules/custom_derivatives.py",
        "((pull_out, out_bar), (pull_new, new_bar))",
        "((pull_out, out_bar),)",
        (INSIDE, "-k", "custom_vjp"),
    ),
    Mutation(
        "custom_vjp adds no cotangents",
        "rules/custom_derivatives.py",
        "part if total[i] is None or _is_float0(part) else total[i] + part",
        "part",
        (INSIDE, "-k", "custom_vjp"),
    ),
    Mutation(
        "a root that reads and writes is differentiated",
        "_purify.py",
        "        if out.__hash__ and out in dependent:\n",
        "        if False:\n",
        (ALONE, "-k", "root"),
    ),
    Mutation(
        "every root that writes is refused its derivative",
        "_purify.py",
        "        if names and eqn.primitive is not _primitives.assign_p:\n"
        "            dependent.update(dict.fromkeys(eqn.outvars, names[0]))\n",
        "        if True:\n            dependent.update(dict.fromkeys(eqn.outvars, "
        "min(written, default=None)))\n",
        (ALONE, "-k", "root"),
    ),
    Mutation(
        "custom derivatives are mapped by a vmap that maps nothing",
        "rules/custom_derivatives.py",
        "if parent is not None:",
        "if False:",
        (ALONE, "-k", "maps_nothing"),
    ),
    Mutation(
        "custom derivatives leave two output trees",
        "rules/custom_derivatives.py",
        '        _jax.leave_one_output_tree(params["subfuns"])\n',
        "",
        (TABLE, "-k", "custom_jvp or custom_vjp"),
    ),
    Mutation(
        "custom_vmap always takes the rule of the user",
        "rules/custom_vmap.py",
        "if not any(jax.tree.leaves(batched[:2])):",
        "if True:",
        (ALONE, "-k", "custom_vmap"),
    ),
    Mutation(
        "custom_vmap never takes the rule of the user",
        "rules/custom_vmap.py",
        "if not any(jax.tree.leaves(batched[:2])):",
        "if False:",
        (TABLE, "-k", "custom_vmap"),
    ),
    Mutation(
        "linear_solve hands on the old state",
        "rules/linear_solve.py",
        "(out[len(b) :], new)",
        "(out[len(b) :], changing)",
        (TABLE, "-k", "custom_linear_solve"),
    ),
    Mutation(
        "linear_solve forgets the transposed system",
        "rules/linear_solve.py",
        'transpose_solve if "transpose_solve" in jaxprs else None,',
        "None,",
        (ROOTS, "-k", "custom_linear_solve"),
    ),
    Mutation(
        "shard_map forgets check_vma",
        "rules/shard_map.py",
        '            check_vma=params["check_vma"],\n',
        "",
        (EQUATIONS,),
    ),
    Mutation(
        "shard_map takes a shard for the whole",
        "rules/shard_map.py",
        "x if spec == whole else SHARD",
        "x",
        (ERRORS, "-k", "sharded"),
    ),
    Mutation(
        "a write may differ by device",
        "rules/shard_map.py",
        "        _refuse_varying(staged)\n",
        "",
        (ERRORS, "-k", "device"),
    ),
    # Reads and writes.
    Mutation(
        "a written value has no tangent",
        "_primitives.py",
        "    return out, list(tangents[: len(out)])\n",
        "    return out, [_jax.zero_tangent(x) for x in out]\n",
        (NESTED,),
    ),
    Mutation(
        "an example goes on with what all have left",
        "_primitives.py",
        "(leaf, dim) if own is None else (new, own)",
        "(new, own)",
        (REDUCE,),
    ),
    Mutation(
        "what an ensemble writes keeps its own axis",
        "_primitives.py",
        "    return jnp.moveaxis(leaf, dim, own)\n",
        "    return leaf\n",
        ("tests/test_state_kinds.py", "-k", "ensemble"),
    ),
    Mutation(
        "examples are combined along the first axis",
        "_primitives.py",
        "out = reduce(leaf, axis=dim)",
        "out = reduce(leaf, axis=0)",
        (REDUCE,),
    ),
    Mutation(
        "what examples write is summed unasked",
        "_primitives.py",
        "    if reduce is None:\n",
        "    reduce = reduce or jnp.sum\n    if False:\n",
        (ERRORS, "-k", "mapped"),
    ),
    Mutation(
        "any shape is read",
        "_primitives.py",
        "if [(a.shape, a.dtype) for a in held] != [(a.shape, a.dtype) for a in expected]:",
        "if False:",
        ("tests/test_functions.py", "-k", "w6"),
    ),
    Mutation(
        "the key of the initialization is used",
        "_primitives.py",
        "if axis_name == KEY_AXIS and any(d is not None for d in dims):",
        "if False:",
        ("tests/test_functions.py", "-k", "w4"),
    ),
    Mutation(
        "a primitive that is not known may evaluate state",
        "_primitives.py",
        'if params["staged"] and _jax.evaluates(trace):',
        "if False:",
        (ERRORS, "-k", "no_rule or no"),
    ),
    Mutation(
        "state is a constant of a program",
        "_primitives.py",
        "        with _jax.without_constant_folding():  # state is no constant of a program\n",
        "        if True:\n",
        (ALONE, "-k", "constant"),
    ),
    # Frames.
    Mutation(
        "state that enters is differentiated",
        "_frames.py",
        "                    self.values[name] = tuple(map(_constant, self.values[name]))\n",
        "                    pass\n",
        (NESTED, ROOTS, "-k", "constant or no_transformation or jvp"),
    ),
    Mutation(
        "what was written is a constant",
        "_frames.py",
        "        self._entered.discard(name)\n        self.written.add(name)\n",
        "        self.written.add(name)\n",
        (NESTED, "-k", "constant"),
    ),
    Mutation(
        "any type is written",
        "_frames.py",
        "if types_of(avals_of(leaves)) != types_of(self.avals[name]):",
        "if False:",
        (ERRORS, *FUNCTIONS, "tests/test_spec.py", "tests/test_state_kinds.py"),
    ),
    Mutation(
        "the outermost frame answers",
        "_frames.py",
        "    for frame in reversed(_stack.frames):\n        if frame.trace is trace:\n",
        "    for frame in _stack.frames:\n        if frame.trace is trace:\n",
        (TABLE, INSIDE),
    ),
    Mutation(
        "a failed call leaves its frame",
        "_frames.py",
        "    try:\n        yield\n    finally:\n        _stack.frames, _stack.roots",
        "    if True:\n        yield\n        _stack.frames, _stack.roots",
        (ERRORS, *FUNCTIONS),
    ),
    Mutation(
        "a frame that has ended keeps its values",
        "_frames.py",
        "        self.trace = self.model = None\n        self.values = {}\n"
        "        self.avals = {}\n",
        "        pass\n",
        (LEAKS, CACHING),
    ),
    # What a transformation sees of its own writes.
    Mutation(
        "a read gives back a tangent that was overwritten",
        "_tape.py",
        "count is None or count != _tape.count(trace, name)",
        "count is None",
        (NESTED, INSIDE, REDUCE),
    ),
    Mutation(
        "writes are not counted",
        "_tape.py",
        "    counts[name] = counts.get(name, 0) + 1\n",
        "    counts[name] = 0\n",
        (NESTED, INSIDE, REDUCE),
    ),
    Mutation(
        "a read has no tangent",
        "_tape.py",
        "        return bind() if kept is None else kept\n",
        "        return bind()\n",
        (NESTED, INSIDE, REDUCE),
    ),
    Mutation(
        "nested roots hide a transformation",
        "_tape.py",
        "while isinstance(trace, _jax.ForwardingTrace) and _frames.find(trace, name) is None:",
        "while False:",
        (NESTED, INSIDE, REDUCE),
    ),
    # Batches and keys.
    Mutation(
        "only the innermost vmap is the batch",
        "../_batched/_primitive.py",
        "        if _jax.differentiates(below):\n",
        "        if params['sizes'] or _jax.differentiates(below):\n",
        ("tests/nn/test_batched.py", "-k", "nested"),
    ),
    Mutation(
        "an axis that is gathered is averaged over again",
        "../_batched/_primitive.py",
        "    _gathered.names = before | names\n",
        "    pass\n",
        ("tests/nn/test_batched.py", "-k", "named"),
    ),
    Mutation(
        "members stand in front of their examples",
        "../_batched/_primitive.py",
        "targets = [0] * split + [len(sizes) if has else 0 for has in has_axes]",
        "targets = [0] * (split + len(has_axes))",
        ("tests/nn/test_batched.py", "-k", "members"),
    ),
    Mutation(
        "all examples share a key",
        "../_example_keys.py",
        "    return example_key_p.bind(key, *ties)[0]\n",
        "    return key\n",
        ("tests/nn/test_keywords.py", "-k", "example"),
    ),
    Mutation(
        "a key that is mapped is mapped again",
        "../_example_keys.py",
        "    if dim is None:\n",
        "    if True:\n        dim = 0\n",
        ("tests/nn/test_keywords.py", "-k", "mapped_root"),
    ),
    Mutation(
        "all devices share a key",
        "../_example_keys.py",
        "        key = jax.random.fold_in(key, lax.axis_index(axis))\n",
        "        pass\n",
        ("tests/nn/test_keywords.py", "-k", "device"),
    ),
    # What is watched.
    Mutation(
        "a traced root lets unknown primitives pass",
        "_trace.py",
        "if primitive not in _jax.INTERCEPTED and _jax.has_subjaxpr(params):",
        "if False:",
        (ERRORS,),
    ),
    Mutation(
        "what is compiled may hold state",
        "_primitives.py",
        "    def impl(*operands, var, **_):\n",
        "    def impl(*operands, var, **_):\n        return operands[:1] or [jnp.int32(0)]\n",
        (ERRORS, "-k", "staged"),
    ),
    Mutation(
        "state inside a body lets unknown primitives pass",
        "_purify.py",
        "            refuse_state_inside(eqn.primitive, eqn.params)\n            continue\n",
        "            continue\n",
        (ERRORS,),
    ),
    # What a body does with its state.
    Mutation(
        "a variable that is read and written is only read",
        "_purify.py",
        "one.written or other.written",
        "one.written and other.written",
        (TABLE, "-k", "scan"),
    ),
    Mutation(
        "a body leaves the state that it met",
        "_purify.py",
        "new = {name: frame.values[name] for name in changing}",
        "new = dict(changing)",
        (TABLE, "-k", "scan"),
    ),
    Mutation(
        "a body forgets how examples combine",
        "_purify.py",
        "self._refs[name], self._uses[name].reduce)",
        "self._refs[name])",
        (REDUCE,),
    ),
    Mutation(
        "a body forgets what says how state is mapped",
        "_purify.py",
        "known = tuple(indices) if len(indices) == len(refs) else ()",
        "known = ()",
        ("tests/test_members.py",),
    ),
    Mutation(
        "what a body declares has no structure",
        "_purify.py",
        "one.structure if one.structure is not None else other.structure",
        "None",
        FUNCTIONS,
    ),
]

MUTATIONS += [
    Mutation(what, file, old, new, (FOUND, "-k", found)) for what, file, old, new, found in BROKEN
]
