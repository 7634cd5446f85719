"""Which columns the live table has, by the width of the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from startgate.events import Container

_IMAGE_FROM, _POD_FROM = 120, 150
"""Columns of a terminal from which on there is room for images, and for pods."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns beside those that are always there."""

    image: bool = False
    pod: bool = False

    @classmethod
    def of(cls, width: int | None, wide: bool) -> Layout:
        """Return what fits. Where nothing is cut, `wide` decides."""
        if wide or width is None:
            return cls(wide, wide)
        return cls(width >= _IMAGE_FROM, width >= _POD_FROM)

    @property
    def head(self) -> str:
        """The titles of the further columns."""
        return self._joined("IMAGE", "POD")

    def cells(self, container: Container, cut: Callable[[str, int], str]) -> str:
        """Return what stands in them."""
        pod = container.kubernetes
        name = f"{pod.namespace or '-'}/{pod.pod}" if pod and pod.pod else "-"
        return self._joined(_end(container.image or "-", 24, cut), cut(name, 28))

    def _joined(self, image: str, pod: str) -> str:
        return (f"{image:<24} " if self.image else "") + (f"{pod:<28} " if self.pod else "")


def _end(image: str, width: int, cut: Callable[[str, int], str]) -> str:
    """Return an image's name; of a long one the end: its beginning is a registry's, and the same for many."""
    text = cut(image, width)
    return text if "…" not in text else f"…{image[1 - width :]}"
