"""Named state as effects: reads and writes that mean the same under every JAX transformation.

The life of a variable, in the order of the files:

1.  *It has a name* (`_names`): the level of its root call, the path of its module, its field. Two
    JAX primitives read and write it (`_primitives`). Each binds with an effect that holds the name,
    so a jaxpr says itself which variables it touches, however often JAX hands it out of a cache.
2.  *It is entered.* A root call opens a frame (`_frames`, `_trace.open_frame`) and adds a
    `Variable` for each state field: its leaves, their types, its structure. The frame lives at one
    trace of JAX. The modules inside keep no state; they refer to the frame (`_module/_live`).
3.  *It is read and written.* The primitive climbs down the stack of JAX's traces. `vmap` and `grad`
    have rules for it: along which axis it is mapped, which tangent it has, how the writes of many
    examples combine. What such a transformation wrote and will read again is on its tape
    (`_write_tape`), since the frame below holds values only. At the frame's own trace the frame
    answers. At a trace that stages a jaxpr, the primitive becomes an equation.
4.  *It is threaded.* When JAX binds a primitive with such a jaxpr inside, before any transformation
    sees it, the rule of that primitive (`rules/`) reads the variables, rebuilds the primitive
    through JAX's public function with their values as further inputs and outputs
    (`_functionalize.thread`), and writes what came out. While the body runs inside, a *replay*
    holds its variables in place of the frame. So JAX transforms the program that one would have
    written by hand. Functions with a derivative of their own keep it for their outputs; what they
    write has the natural one (`_derivatives`).
5.  *It leaves.* The values of written variables go into a new model, and the frame forgets all. An
    effect that no frame and no rule met is refused, never dropped: by the root's trace, by the
    primitive's own implementation, or by its lowering.
"""
