"""Mutations of live modules, of batches, of the keys of examples, and of annotations."""

from mutation import LEAKS, LIVE, MEMBERS, PLACES, STACKS, Mutation

MUTATIONS = [
    # Live modules and values.
    Mutation(
        "a live module acts on any root call",
        "../_module/_live.py",
        "            return (), self.frame.identity\n",
        "            return (), None\n",
        (PLACES, "-k", "jitted"),
    ),
    Mutation(
        "a live module acts after its root call",
        "../_module/_live.py",
        "        if self.ended:\n",
        "        if False:\n",
        (LEAKS, PLACES),
    ),
    Mutation(
        "a value forgets the derivative and the axes that it carries",
        "../_module/_live.py",
        "    live.__dict__[PLACE].refs = {field: tuple(leaves) for field, "
        "(leaves, _) in values.items()}\n",
        "",
        (MEMBERS, STACKS),
    ),
    Mutation(
        "a snapshot keeps its place",
        "../_module/_live.py",
        "return _pytree.with_data(module, data, scope=None)",
        "return _pytree.with_data(module, data)",
        (PLACES, "-k", "snapshot"),
    ),
    Mutation(
        "a snapshot holds the state that entered",
        "../_module/_live.py",
        "        if is_live(module):\n            module = _pytree.value_of(module)\n"
        "        data = _pytree",
        "        data = _pytree",
        (LIVE, PLACES, "-k", "snapshot or explicit"),
    ),
    Mutation(
        "a root call makes strangers of the modules of another",
        "../_module/_live.py",
        "if scope is None or (frame is not None and scope.level != frame.level):",
        "if scope is None:",
        (PLACES, "-k", "outer"),
    ),
    Mutation(
        "a stray value takes the place of another when it is put together again",
        "../_module/_pytree.py",
        "answer for it\n            aux = _with_scope(aux, scope._replace(level=GONE))\n",
        "answer for it\n            pass\n",
        (PLACES, "-k", "stray"),
    ),
    Mutation(
        "a root call answers for modules that it did not hand out",
        "../_module/_pytree.py",
        "root if root is not None and extra.scope.path in root.handed_out else None",
        "root",
        ("tests/programs/test_found.py",),
    ),
    Mutation(
        "a value belongs to the innermost root call",
        "../_module/_pytree.py",
        "root = _frames.at_level(extra.scope.level)",
        "root = _frames.innermost()",
        (PLACES,),
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
]
