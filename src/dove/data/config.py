"""Settings of the training data. Imports no torch."""

from dataclasses import dataclass

from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of training pictures. The defaults are mild."""

    crop_probability: float = 0.5
    """Share of pictures cropped at random; the others give their central square, as in evaluation."""
    crop_scale: float = 0.8
    """Least area of a random crop, as a share of the largest square; above 0, at most 1."""
    crop_ratio: float = 1.1
    """Greatest width over height of a random crop, and height over width; at least 1."""
    grayscale_probability: float = 0.1
    """Share of pictures converted to grey."""
    flip: bool = True
    """Mirror half of the pictures left to right."""

    def __post_init__(self) -> None:
        for name in ("crop_probability", "grayscale_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)} is no probability; pass 0 to 1")
        if not 0 < self.crop_scale <= 1:
            raise UserError(f"crop_scale={self.crop_scale} must be above 0 and at most 1")
        if self.crop_ratio < 1:
            raise UserError(f"crop_ratio={self.crop_ratio} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Composition of scenes from captioned cut-outs on photos."""

    things: int = 4
    """Greatest number of cut-outs in a scene; the least is two."""
    sides: tuple[float, float] = (0.3, 0.5)
    """Least and greatest longer side of a cut-out, in sides of the scene."""
    curriculum: int = 100_000
    """Scenes over which their cut-outs become from two to as many as ``things``, and from the greatest side as small as the
    least; 0 draws everything from the first scene on."""

    def __post_init__(self) -> None:
        if self.things < 2:
            raise UserError(f"things={self.things} must be at least 2")
        if not 0 < self.sides[0] <= self.sides[1] <= 0.5:
            raise UserError(f"sides={self.sides} must be two rising numbers above 0 and at most 0.5")
        if self.curriculum < 0:
            raise UserError(f"curriculum={self.curriculum} must be at least 0")
