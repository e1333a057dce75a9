"""Plots of measured runs as SVG, by hand: bench/chain.py and bench/paper.py draw with it. Only the standard library is used.

    bars       one bar a scheme, from its fastest to its slowest run, with a tick where the prediction was
    waterfall  one run: of every rank what it computed, waited for and did else, against the prediction
    lines      one line a scheme over nodes, tokens or bandwidth
"""
import math
from html import escape

WIDTH, LEFT, RIGHT, ROW = 760, 190, 70, 26  # pixels
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"]  # Okabe and Ito's
PARTS = [("compute", "#0072b2"), ("waits for K/V", "#e69f00"), ("other", "#cccccc")]


def number(value):
    return f"{value:.3g}"


def text(x, y, words, anchor="start", colour="#222"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(str(words))}</text>'


def rectangle(x, y, width, height, colour, tip=""):
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height}" fill="{colour}">{inside}</rect>'


def line(x1, y1, x2, y2, colour="#ddd", width=1.0):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def picture(title, height, parts):
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
                      f'font-size="12"><rect width="{WIDTH}" height="{height}" fill="#fff"/>', text(10, 20, title), *parts,
                      "</svg>\n"])


def ticks(most):
    """Round numbers from 0 to at least `most`, at most eight steps of 1, 2 or 5 times a power of ten."""
    decade = 10.0 ** math.floor(math.log10(most))
    step = next(size * decade for size in (0.1, 0.2, 0.5, 1, 2) if most / (size * decade) <= 8)
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]


def horizontal(top, rows, most):
    """Grid and scale of `rows` rows in seconds; x of a value."""
    marks = ticks(most)
    scale = (WIDTH - LEFT - RIGHT) / marks[-1]
    bottom = top + rows * ROW
    parts = []
    for mark in marks:
        x = LEFT + mark * scale
        parts += [line(x, top, x, bottom), text(x, bottom + 16, number(mark), "middle")]
    parts.append(text(WIDTH - RIGHT + 8, bottom + 16, "seconds"))
    return parts, lambda value: LEFT + value * scale


def bars(title, rows):
    """rows: label, median, fastest, slowest, predicted (or None), all in seconds."""
    parts, at = horizontal(36, len(rows), max(max(row["slowest"], row["predicted"] or 0) for row in rows))
    for i, row in enumerate(rows):
        y, tip = 36 + i * ROW, f"{row['label']}: {row['median']:.3f} s"
        parts += [text(LEFT - 8, y + 17, row["label"], "end"),
                  rectangle(LEFT, y + 5, at(row["median"]) - LEFT, ROW - 10, COLOURS[0], tip),
                  line(at(row["fastest"]), y + ROW / 2, at(row["slowest"]), y + ROW / 2, "#000", 1.5),
                  text(at(row["slowest"]) + 6, y + 17, f"{row['median']:.2f}")]
        if row["predicted"]:
            parts.append(line(at(row["predicted"]), y + 2, at(row["predicted"]), y + ROW - 2, "#d55e00", 2))
    return picture(f"{title} (line: fastest to slowest; orange: predicted)", 36 + len(rows) * ROW + 30, parts)


def waterfall(title, ttft, predicted, ranks):
    """ranks: compute, wait (seconds) of each; what is left of the time to first token is other."""
    parts, at = horizontal(56, len(ranks), max(ttft, predicted or 0))
    for i, (name, colour) in enumerate(PARTS):
        parts += [rectangle(LEFT + i * 130, 30, 12, 12, colour), text(LEFT + i * 130 + 18, 41, name)]
    for i, rank in enumerate(ranks):
        y, begin = 56 + i * ROW, 0.0
        parts.append(text(LEFT - 8, y + 17, f"rank {i}", "end"))
        for (name, colour), took in zip(PARTS, (rank["compute"], rank["wait"], ttft - rank["compute"] - rank["wait"])):
            if took > 0:
                parts.append(rectangle(at(begin), y + 4, at(begin + took) - at(begin), ROW - 8, colour,
                                       f"rank {i}, {name}: {took:.3f} s"))
                begin += took
    bottom = 56 + len(ranks) * ROW
    parts.append(line(at(ttft), 50, at(ttft), bottom, "#000", 2))
    if predicted:
        parts.append(line(at(predicted), 50, at(predicted), bottom, "#d55e00", 2))
    told = f", predicted {predicted:.2f} s (orange)" if predicted else ""
    return picture(f"{title}: {ttft:.2f} s{told}", bottom + 30, parts)


def lines(title, x_name, y_name, series):
    """series: name -> list of (x, y). Places of x are even: they are few, and powers of two."""
    places = sorted({x for points in series.values() for x, _ in points})
    marks = ticks(max(y for points in series.values() for _, y in points))
    top, bottom, left, right = 40, 330, 60, 540

    def at(x, y):
        share = places.index(x) / max(1, len(places) - 1)
        return left + 20 + share * (right - left - 40), bottom - y / marks[-1] * (bottom - top)

    parts = []
    for mark in marks:
        y = at(places[0], mark)[1]
        parts += [line(left, y, right, y), text(left - 8, y + 4, number(mark), "end")]
    parts += [text(at(x, 0)[0], bottom + 18, f"{x:g}", "middle") for x in places]
    parts += [text((left + right) / 2, bottom + 36, x_name, "middle"), text(10, 34, y_name)]
    for i, (name, points) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in sorted(points)))
        parts += [f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>',
                  text(right + 34, top + 18 * i + 4, name),
                  line(right + 10, top + 18 * i, right + 28, top + 18 * i, colour, 2)]
        for point in sorted(points):
            x, y = at(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{escape(name)}: '
                         f'{number(point[1])}</title></circle>')
    return picture(title, bottom + 50, parts)
