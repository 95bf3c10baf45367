"""A contact sheet of hard examples: the queries whose truth ranks worst, beside the truth and what stood first instead.

One picture says what no number does: whether a model fails on fields, on snow, on places that look alike, or on a
label that is wrong.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from onboard.errors import PilotageError
from training.benchmarks.base import Benchmark, Picture
from training.evaluation.retrieve import Ranking

CELL_PX, CAPTION_PX, MARGIN_PX = 160, 34, 8
_INK, _PAPER = (32, 32, 32), 255


class ContactSheetError(PilotageError):
    """A contact sheet that cannot be written."""


def hard_queries(ranking: Ranking, count: int) -> list[int]:
    """The indexes of at most `count` queries whose first answer is wrong, the worst rank of the truth first."""
    best = ranking.best_ranks
    worst = np.argsort(-best, kind="stable")[:count]
    return [int(query) for query in worst if best[query] > 0]


def draw_sheet(benchmark: Benchmark, ranking: Ranking, rows: int = 8, wrong: int = 3) -> np.ndarray:
    """(height, width, 3) uint8 RGB. A row a query: the query, its truth, and the `wrong` first references above it.

    Where every query finds its truth first, the sheet is one line that says so.
    """
    hard = hard_queries(ranking, rows)
    lines = [_row(benchmark, ranking, query, wrong) for query in hard]
    width = (2 + wrong) * (CELL_PX + MARGIN_PX) + MARGIN_PX
    missed = int((ranking.best_ranks > 0).sum())
    title = f"{benchmark.name} {benchmark.protocol}: {missed} of {len(benchmark.queries)} queries find another first"
    return np.concatenate([_caption([title], width), *lines])


def write_sheet(path: Path, benchmark: Benchmark, ranking: Ranking, rows: int = 8, wrong: int = 3) -> Path:
    """Draw the sheet into a PNG, beside and then renamed. Raises ContactSheetError where it cannot be written."""
    sheet = draw_sheet(benchmark, ranking, rows, wrong)
    beside = path.with_name(f"{path.stem}.partial.png")
    if not cv2.imwrite(str(beside), sheet[..., ::-1]):
        raise ContactSheetError("contact sheet", path, "a folder that can be written")
    beside.replace(path)
    return path


def _row(benchmark: Benchmark, ranking: Ranking, query: int, wrong: int) -> np.ndarray:
    asked = benchmark.queries[query]
    ranks = ranking.ranks[query]
    truth = int(asked.positives[int(ranks.argmin())])
    above = min(wrong, int(ranks.min()))
    others = [int(r) for r in ranking.found[query] if int(r) not in asked.positives][:above]
    cells = [
        _cell(asked.picture, "query", asked.place),
        _cell(benchmark.references[truth].picture, f"truth, rank {int(ranks.min()) + 1}", asked.place),
    ]
    for position, reference in enumerate(others):
        seen = benchmark.references[reference]
        cells.append(_cell(seen.picture, f"found {position + 1}", seen.place))
    blank = np.full_like(cells[0], _PAPER)
    return np.concatenate([*cells, *[blank] * (wrong - len(others)), blank[:, :MARGIN_PX]], axis=1)


def _cell(picture: Picture, what: str, place: str) -> np.ndarray:
    """One picture, whole, with two lines above it and a margin at its left and bottom."""
    rgb, mask = picture.read()
    rgb = np.where(mask[..., None], rgb, _PAPER).astype(np.uint8)
    scale = CELL_PX / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cell = np.full((CELL_PX + MARGIN_PX, CELL_PX + MARGIN_PX, 3), _PAPER, dtype=np.uint8)
    cell[: small.shape[0], MARGIN_PX : MARGIN_PX + small.shape[1]] = small
    return np.concatenate([_caption([what, place[-24:]], CELL_PX + MARGIN_PX), cell])


def _caption(lines: list[str], width: int) -> np.ndarray:
    strip = np.full((CAPTION_PX, width, 3), _PAPER, dtype=np.uint8)
    for number, line in enumerate(lines):
        at = (MARGIN_PX, 14 + 14 * number)
        cv2.putText(strip, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, _INK, 1, cv2.LINE_AA)
    return strip
