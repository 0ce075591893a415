"""Strategies of Hypothesis for what a broken or hostile sender makes of a file."""
import copy
from collections.abc import Iterator

from hypothesis import strategies as st

#: Whatever JSON may hold; numbers that no float holds, too.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.just(10**400) | st.floats() | st.text(max_size=5)
    | st.sampled_from(['\ud800', 'a\nb', '\x1b[2J', '../..', '/etc', '*', 'nan', '']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5)


def places(tree, path: tuple = ()) -> Iterator[tuple]:
    """The way to every value of a tree of dicts and lists, itself included."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@st.composite
def changed_trees(draw, tree):
    """A tree of JSON of which one to three values are replaced, removed or doubled, or which has one more."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(tree))))
        if not path:
            tree = draw(JSON) if draw(st.integers(0, 9)) == 0 else tree
            continue
        *above, key = path
        parent = tree
        for step in above:
            parent = parent[step]
        change = draw(st.sampled_from(['replace', 'remove', 'double', 'add', 'swap']))
        if change == 'replace':
            parent[key] = draw(JSON)
        elif change == 'remove':
            del parent[key]
        elif change == 'double' and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif change == 'add' and isinstance(parent, dict):
            parent[draw(st.text(max_size=4))] = draw(JSON)
        elif change == 'swap':
            other = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else list(range(len(parent)))))
            parent[key], parent[other] = parent[other], parent[key]
    return tree


@st.composite
def changed_bytes(draw, content: bytes):
    """Bytes of which a part is cut off, removed, doubled, or replaced by others."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 20)))
    change = draw(st.sampled_from(['cut', 'remove', 'double', 'replace']))
    if change == 'cut':
        return content[:start]
    piece = {'remove': b'', 'double': 2 * content[start:end], 'replace': None}[change]
    return content[:start] + (draw(st.binary(max_size=20)) if piece is None else piece) + content[end:]
