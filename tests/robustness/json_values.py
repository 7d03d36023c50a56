"""JSON for Hypothesis: any at all, and a good document with something in it replaced."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

LARGE = st.sampled_from([0, -1, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 10**30, 10**400])
# Texts may have halves of surrogate pairs: JSON can write them.
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(categories=["Cs", "Cc", "Cn", "Lu"]), max_size=3),
    st.sampled_from(["", "\0", "\ud800", "force", "null", "-1", "a" * 5000]),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-100, 100), LARGE, st.floats(width=64), TEXTS
)


def json_values() -> st.SearchStrategy[Any]:
    """Anything; numbers may be NaN and infinite, as Python's own parser reads them."""
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)
        ),
        max_leaves=8,
    )


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _places(inner, (*path, index))
    return found


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any], most: int = 2) -> dict[str, Any]:
    """A copy in which one or two places are replaced, removed, repeated or added."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = _places(changed)
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        holder: Any = changed
        for step in way:
            holder = holder[step]
        change = draw(st.sampled_from(["replace", "replace", "remove", "wrap", "add"]))
        if change == "replace":
            holder[last] = draw(json_values())
        elif change == "remove":
            del holder[last]
        elif change == "wrap":
            holder[last] = [holder[last]] * draw(st.integers(0, 3))
        elif isinstance(holder, dict):
            holder[draw(TEXTS)] = draw(json_values())
        else:
            holder.append(draw(json_values()))
    return changed
