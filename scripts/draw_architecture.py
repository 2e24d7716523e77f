"""Draw `docs/architecture.svg`: the parts of the package in rows, and who imports whom.

Everything is read from the imports with `ast`, those inside functions included, so the picture is
right by construction; a test fails while the committed picture is not what this script draws. The
layout is Sugiyama's: rows by longest path, order by barycentre, long edges through the gaps.
"""

from __future__ import annotations

import ast
import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "xai_demo"
PICTURE = ROOT / "docs" / "architecture.svg"

WIDTH, MARGIN, GAP = 1240, 28, 16
ROW_GAP, TOP = 46, 84
TITLE_PX, TEXT_PX, LINE_PX = 15, 11, 15
CHARACTER_PX = 6.0  # of the small text, on average
LANE_PX = 6  # room for an edge that passes between the boxes of a row
SWEEPS = 24
_WRAP = ((17, 96), (10, 60), (8, 30), (0, 24))  # at least so many names: characters a line

STYLE = """
  .card { fill: #ffffff; stroke: #d5dbe6; }
  .box { fill: #eef3fc; stroke: #8ea6d4; stroke-width: 1.2; }
  .module { fill: #f8f9fb; stroke: #b4bccb; stroke-width: 1.2; }
  .edge { fill: none; stroke: #7787a6; stroke-width: 1.3; }
  .head { fill: #7787a6; }
  .name { font-weight: 650; fill: #16213a; }
  .small { fill: #4d5a73; }
  text { font-family: system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #11161f; stroke: #2b3547; }
    .box { fill: #1b2740; stroke: #5f7fc0; }
    .module { fill: #191f2b; stroke: #4a566d; }
    .edge { stroke: #8394b6; }
    .head { fill: #8394b6; }
    .name { fill: #eef2fa; }
    .small { fill: #aab6cc; }
  }
"""


@dataclass(slots=True)
class Node:
    """A box, or the place where a long edge passes a row."""

    name: str  # "" for a passing edge
    lines: tuple[str, ...] = ()
    width: float = 2 * LANE_PX
    x: float = 0.0  # of its centre
    up: list[Node] = field(default_factory=list)
    down: list[Node] = field(default_factory=list)


# What the source says


def part_of(path: Path) -> str:
    """The part a file belongs to: "hub" for xai_demo/hub/store.py, "app.py" for app.py."""
    if path.parent == ROOT:
        return path.name
    first = path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")
    return "cli" if first == "__main__" else first


def parts() -> dict[str, list[Path]]:
    """Every part with its files."""
    result: dict[str, list[Path]] = {"app.py": [ROOT / "app.py"]}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        if path != ROOT / PACKAGE / "__init__.py":
            result.setdefault(part_of(path), []).append(path)
    return result


def imported_names(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(files: dict[str, list[Path]]) -> dict[str, set[str]]:
    """Which parts each part imports."""
    result: dict[str, set[str]] = {}
    for part, paths in files.items():
        names = [name.split(".") for path in paths for name in imported_names(path)]
        found = {name[1] for name in names if name[0] == PACKAGE and len(name) > 1}
        result[part] = (found & set(files)) - {part}
    return result


def reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    """All parts that a part imports, directly or through others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = edges[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def essential(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The edges that do not follow from others (the transitive reduction)."""
    below = {part: reachable(edges, part) for part in edges}
    cycles = [part for part in edges if part in below[part]]
    if cycles:
        raise SystemExit(f"Import cycle through {', '.join(cycles)}; imports must point downwards.")
    return {
        part: {to for to in direct if not any(to in below[other] for other in direct)}
        for part, direct in edges.items()
    }


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    """The row of every part, 0 at the top: above all it imports; entry points all at the top."""
    height: dict[str, int] = {}

    def measure(part: str) -> int:
        if part not in height:
            height[part] = 1 + max((measure(below) for below in edges[part]), default=-1)
        return height[part]

    top = max(measure(part) for part in edges)
    used = set().union(*edges.values())
    return {part: top - height[part] if part in used else 0 for part in edges}


# Layout


def box(part: str, paths: Sequence[Path]) -> Node:
    """A box with the names of what the part consists of."""
    folder = ROOT / PACKAGE / part
    if folder / "__init__.py" not in paths:
        name = part if part.endswith(".py") else f"{part}.py"
        return Node(name, width=max(88.0, 8.6 * len(name) + 22))
    folders = sorted({p.parent.name + "/" for p in paths if p.parent.parent == folder})
    modules = sorted(p.stem for p in paths if p.parent == folder and p.stem != "__init__")
    names = folders + modules
    most = next(characters for least, characters in _WRAP if len(names) >= least)
    # A line may only break after a separator, which is then left out.
    text = textwrap.wrap(" · ".join(names).replace(" ·", "\u00a0·"), most, break_on_hyphens=False)
    lines = tuple(line.removesuffix("\u00a0·") for line in text)
    longest = max((len(line) for line in lines), default=0)
    return Node(f"{part}/", lines, width=max(92.0, CHARACTER_PX * longest + 24))


def rows_of(files: dict[str, list[Path]]) -> list[list[Node]]:
    """The nodes row by row, long edges cut into pieces by a node in every row they pass."""
    edges = essential(imports(files))
    level = levels(edges)
    # Nearly everything imports the lowest row: arrows to it would hide the others.
    base = max(level.values())
    edges = {part: {to for to in below if level[to] < base} for part, below in edges.items()}
    nodes = {part: box(part, paths) for part, paths in files.items()}
    rows: list[list[Node]] = [[] for _ in range(max(level.values()) + 1)]
    for part in sorted(nodes):
        rows[level[part]].append(nodes[part])
    for part in sorted(edges):
        for to in sorted(edges[part]):
            last = nodes[part]
            for row in range(level[part] + 1, level[to]):
                lane = Node("")
                rows[row].append(lane)
                _join(last, lane)
                last = lane
            _join(last, nodes[to])
    return rows


def _join(upper: Node, lower: Node) -> None:
    upper.down.append(lower)
    lower.up.append(upper)


def crossings(rows: list[list[Node]]) -> int:
    """How many pairs of edges cross."""
    total = 0
    for upper, lower in itertools.pairwise(rows):
        place = {id(node): i for i, node in enumerate(lower)}
        ends = [place[id(to)] for node in upper for to in sorted(node.down, key=_place(place))]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _place(place: dict[int, int]) -> Callable[[Node], int]:
    return lambda node: place[id(node)]


def order(rows: list[list[Node]]) -> None:
    """Sort every row by the mean place of its neighbours, up and down in turn; keep the best."""
    best, least = [list(row) for row in rows], crossings(rows)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows[1:] if down else rows[-2::-1]:
            index = rows.index(row) - 1 if down else rows.index(row) + 1
            place = {id(node): i / max(len(rows[index]), 1) for i, node in enumerate(rows[index])}
            means = {}
            for i, node in enumerate(row):
                others = [place[id(other)] for other in (node.up if down else node.down)]
                means[id(node)] = sum(others) / len(others) if others else i / len(row)
            row.sort(key=lambda node: means[id(node)])
        if (now := crossings(rows)) < least:
            best, least = [list(row) for row in rows], now
    for row, kept in zip(rows, best, strict=True):
        row[:] = kept


def spread(row: list[Node], wanted: Sequence[float]) -> None:
    """Place a row as near as possible to the wanted centres, in order and without overlap.

    Least squares under minimum distances: isotonic regression by pooling adjacent violators.
    """
    offsets = [0.0]
    for left, right in itertools.pairwise(row):
        offsets.append(offsets[-1] + (left.width + right.width) / 2 + GAP)
    pools: list[list[float]] = []  # mean, weight, members
    for node, centre, offset in zip(row, wanted, offsets, strict=True):
        weight = 1.0 if node.name else 3.0  # an edge that runs straight reads better
        pools.append([centre - offset, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, more, members = pools.pop()
            total = pools[-1][1] + more
            pools[-1][0] = (pools[-1][0] * pools[-1][1] + mean * more) / total
            pools[-1][1], pools[-1][2] = total, pools[-1][2] + members
    low = MARGIN + row[0].width / 2
    high = WIDTH - MARGIN - row[-1].width / 2 - offsets[-1]
    places = [min(max(mean, low), high) for mean, _, n in pools for _ in range(int(n))]
    for node, place, offset in zip(row, places, offsets, strict=True):
        node.x = place + offset


def place(rows: list[list[Node]]) -> None:
    """Give every node its x: near its neighbours, rows swept up and down."""
    for row in rows:
        step = WIDTH / (len(row) + 1)
        spread(row, [step * (i + 1) for i in range(len(row))])
    for sweep in range(2 * SWEEPS):
        for row in rows if sweep % 2 else rows[::-1]:
            wanted = []
            for node in row:
                others = [other.x for other in node.up + node.down]
                wanted.append(sum(others) / len(others) if others else node.x)
            spread(row, wanted)


# Drawing


def svg(files: dict[str, list[Path]]) -> str:
    """The whole picture."""
    rows = rows_of(files)
    order(rows)
    place(rows)
    heights = [max(_height(node) for node in row) for row in rows]
    tops = [TOP + sum(heights[:i]) + ROW_GAP * i for i in range(len(rows))]
    total = tops[-1] + heights[-1] + MARGIN
    count = sum(len(paths) for paths in files.values()) - 1  # app.py is not in the package
    caption = (
        f"{count} modules. An arrow points from a part to one it imports, and so may use whatever "
        "that one points at. The lowest row is open to all."
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" role="img" '
        'aria-labelledby="title desc">',
        '<title id="title">The parts of xai_demo and their imports</title>',
        f'<desc id="desc">{escape(caption)}</desc>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="head" d="M0 0.5 L8 4 L0 7.5 Z"/></marker>'
        "</defs>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{total - 1}" rx="12"/>',
        f'<text class="name" x="{MARGIN}" y="38" font-size="20">Who imports whom</text>',
        f'<text class="small" x="{MARGIN}" y="60" font-size="13">{escape(caption)}</text>',
    ]
    spans = list(zip(rows, tops, heights, strict=True))
    for (row, top, _), (_, below, _) in itertools.pairwise(spans):
        lines += [_edge(a, b, top, below, heights[rows.index(row)]) for a in row for b in a.down]
    for row, top, height in spans:
        for node in row:
            lines += _box(node, top) if node.name else [_lane(node, top, height)]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _height(node: Node) -> float:
    return 34 + (LINE_PX * len(node.lines) + 4 if node.lines else 0) if node.name else 0


def _edge(upper: Node, lower: Node, top: float, below: float, height: float) -> str:
    """A curve from the foot of one node to the head of another, one row further down."""
    foot = top + (_height(upper) if upper.name else height)
    start, end = top + height, below - (1 if lower.name else 0)
    x0, x1 = _port(upper, lower), _port(lower, upper)
    bend = (end - start) * 0.55
    marker = ' marker-end="url(#head)"' if lower.name else ""
    return (
        f'<path class="edge" d="M{x0:.1f} {foot:.1f} V{start:.1f} C{x0:.1f} {start + bend:.1f} '
        f'{x1:.1f} {end - bend:.1f} {x1:.1f} {end:.1f}"{marker}/>'
    )


def _port(node: Node, other: Node) -> float:
    """Where an edge meets a node: spread along its side, in the order of the far ends."""
    if not node.name:
        return node.x
    side = node.down if any(other is each for each in node.down) else node.up
    ends = sorted(side, key=lambda each: each.x)
    rank = next(i for i, each in enumerate(ends) if each is other)
    room = min(node.width - 24, 26.0 * (len(ends) - 1))
    return node.x + (room * (rank / (len(ends) - 1) - 0.5) if len(ends) > 1 else 0.0)


def _lane(node: Node, top: float, height: float) -> str:
    return f'<path class="edge" d="M{node.x:.1f} {top:.1f} V{top + height:.1f}"/>'


def _box(node: Node, top: float) -> list[str]:
    kind = "box" if node.name.endswith("/") else "module"
    lines = [
        f'<rect class="{kind}" x="{node.x - node.width / 2:.1f}" y="{top:.1f}" '
        f'width="{node.width:.1f}" height="{_height(node):.1f}" rx="7"/>',
        f'<text class="name" x="{node.x:.1f}" y="{top + 22:.1f}" font-size="{TITLE_PX}" '
        f'text-anchor="middle">{escape(node.name)}</text>',
    ]
    lines += [
        f'<text class="small" x="{node.x:.1f}" y="{top + 26 + LINE_PX * (i + 1):.1f}" '
        f'font-size="{TEXT_PX}" text-anchor="middle">{escape(line)}</text>'
        for i, line in enumerate(node.lines)
    ]
    return lines


if __name__ == "__main__":
    PICTURE.write_text(svg(parts()), encoding="utf-8")
