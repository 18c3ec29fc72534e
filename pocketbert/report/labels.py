"""Put names beside points of a plot so that no name covers another."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle in pixels; y grows upwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: "Box") -> float:
        """Area that both cover."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


def place_labels(
    points: Sequence[tuple[float, float]],
    radii: Sequence[float],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    gap: float = 3.0,
) -> list[Box]:
    """A box of the given size (width, height) near each point, inside `frame` where that is possible.

    Greedy, crowded points first: of a fan of positions around its point each label takes the one that covers
    least of the labels placed before and of the points' own discs (`radii`), and then the nearest.
    """
    discs = [Box(x - r, y - r, x + r, y + r) for (x, y), r in zip(points, radii, strict=True)]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: _room(points, i)):
        candidates = _fan(points[index], radii[index] + gap, sizes[index])
        placed[index] = min(candidates, key=lambda c: _cost(c, points[index], list(placed.values()), discs, frame))
    return [placed[index] for index in range(len(points))]


def _room(points: Sequence[tuple[float, float]], index: int) -> float:
    """Distance to the nearest other point."""
    return min((math.dist(points[index], p) for i, p in enumerate(points) if i != index), default=0.0)


def _fan(point: tuple[float, float], start: float, size: tuple[float, float]) -> list[Box]:
    """Boxes around a point, whose nearest edge is `start` and more pixels away."""
    width, height = size
    boxes = []
    for reach in (0.0, 8.0, 18.0, 30.0, 44.0, 60.0, 80.0, 105.0, 135.0):
        for step in range(16):
            angle = math.tau * step / 16
            dx, dy = math.cos(angle), math.sin(angle)
            # The centre moves on an ellipse that clears half the box in each direction.
            cx = point[0] + dx * (start + reach + width / 2)
            cy = point[1] + dy * (start + reach + height / 2)
            boxes.append(Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
    return boxes


def _cost(
    box: Box, point: tuple[float, float], placed: Sequence[Box], discs: Sequence[Box], frame: Box
) -> tuple[float, float]:
    outside = box.area - box.overlap(frame)
    padded = Box(box.x0 - 4, box.y0 - 1, box.x1 + 4, box.y1 + 1)
    hidden = outside + sum(padded.overlap(other) for other in placed) + sum(box.overlap(disc) for disc in discs)
    nearest = (min(max(point[0], box.x0), box.x1), min(max(point[1], box.y0), box.y1))
    return hidden, math.dist(point, nearest)
