"""Which columns the live table has, and how wide, by the width of the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from startgate import names
from startgate.events import Container

_IMAGE_FROM, _PODS_FROM = 120, 150
"""Columns of a terminal from which on there is room for images, and for the names of pods."""
_NAME, _LONG_NAME, _IMAGE = 20, 44, 24


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that name the container."""

    image: bool = False
    name: int = _NAME

    @classmethod
    def of(cls, width: int | None, wide: bool) -> Layout:
        """Return what fits. Where nothing is cut, `wide` decides."""
        if wide or width is None:
            return cls(wide, _LONG_NAME if wide else _NAME)
        return cls(width >= _IMAGE_FROM, _LONG_NAME if width >= _PODS_FROM else _NAME)

    @property
    def head(self) -> str:
        """The titles."""
        return self._joined("CONTAINER", "IMAGE")

    def cells(self, container: Container, cut: Callable[[str, int], str]) -> str:
        """Return what stands in them."""
        return self._joined(cut(names.shown(container), self.name), _end(container.image or "-", cut))

    def _joined(self, name: str, image: str) -> str:
        return f"{name:<{self.name}} " + (f"{image:<{_IMAGE}} " if self.image else "")


def _end(image: str, cut: Callable[[str, int], str]) -> str:
    """Return an image's name; of a long one the end: its beginning is a registry's, and the same for many."""
    text = cut(image, _IMAGE)
    return text if "…" not in text else f"…{image[1 - _IMAGE :]}"
