"""The reading of compiled programs, on which docs/explanation/scale.md rests."""

import runpy
import types
from pathlib import Path

import pytest

SCALE = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/scale.py"))
MESH = types.SimpleNamespace(shape={"data": 4, "model": 2})
PROGRAM = """\
%body (p: f32[2]) -> f32[2] {
  %g = f32[4,8]{1,0} all-gather(%p), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %r = (f32[8]{0}, f32[8]{0}) all-reduce(%a, %b), replica_groups=[4,2]<=[8], to_apply=%add
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %w = f32[2] while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %s = f32[2]{0} reduce-scatter(%g), replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}
}
"""


def test_collectives_in_loops_count_as_often_as_these_run():
    found = {(c.kind, c.axis): (n, c.sent) for c, n in SCALE["collectives"](PROGRAM, MESH).items()}
    assert found == {
        ("all-gather", "data"): (3, 2 * 32 * 3 / 4),
        ("all-reduce", "model"): (3, 2 * 16 * 2 * 1 / 2),
        ("reduce-scatter", "data"): (1, 2 * 2 * 3),
    }


def test_what_is_not_understood_is_refused():
    for line, text in (
        ("collective-permute(%p)", "not counted"),
        ("all-gather(%p), replica_groups={}", "groups"),
        ("all-gather(%p), replica_groups=[1,8]<=[8]", "groups"),
    ):
        with pytest.raises(ValueError, match=text):
            SCALE["collectives"](
                f"ENTRY %main (p: f32[2]) -> f32[2] {{\n  %x = f32[2] {line}\n}}", MESH
            )


def test_the_least_by_hand():
    tiny = SCALE["SIZES"]["tiny"]
    parameters = 2 * (4 * 64 * 64 + 2 * 64 * 256) + 2 * 512 * 64
    assert SCALE["minimum"](tiny, MESH, 4) == {
        "data": 3 * 2 * parameters / 2 * 3 / 4,
        "model": 2 * 5 * 2 * 2 * (32 * 64) / 2,
    }
