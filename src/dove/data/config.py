"""Settings of the training data. Imports no torch."""

from dataclasses import dataclass

from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a training picture; the defaults are mild."""

    crop_probability: float = 0.5
    """Share of pictures cropped at random; the others give their central square, as in evaluation."""
    crop_scale: float = 0.8
    """Least area of a random crop, as a share of the largest square; above 0, at most 1."""
    crop_ratio: float = 1.1
    """Greatest width over height of a random crop, and height over width; at least 1."""
    grayscale_probability: float = 0.1
    """Share of pictures turned to grey."""
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
