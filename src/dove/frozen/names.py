"""Names of frozen networks. Imports no torch, so that settings can be checked before anything is loaded."""

from dove.errors import UserError

BUILT_IN = ("squeezenet", "efficientnet-lite0", "mobilenet-v2")
PREFIXES = ("timm:", "transformers:")
WITH_FILE = ("squeezenet", "lpips")  # Distances whose network is read from a weights file that the user names

KNOWN_NETWORKS = f"{', '.join(BUILT_IN)}, timm:MODEL or transformers:MODEL"


def is_network(name: str) -> bool:
    """Tell whether a name is one that `dove.frozen.registry.load_network` understands."""
    return name in BUILT_IN or any(name.startswith(prefix) and name != prefix for prefix in PREFIXES)


def split_perceptual(names: str) -> tuple[str, ...]:
    """Split the name of a perceptual distance into those it is the mean of.

    Args:
        names: "none"; or one network or several joined by "+", such as "squeezenet+efficientnet-lite0".

    Raises:
        UserError: If a name is unknown or stands there twice, or "none" is combined with another.
    """
    found = tuple(names.split("+"))
    if found == ("none",):
        return found
    for name in found:
        if name != "lpips" and not is_network(name):
            raise UserError(
                f"unknown perceptual network {name!r}; choose none, lpips, {KNOWN_NETWORKS}, or several joined by +"
            )
    if len(set(found)) < len(found):
        raise UserError(f"perceptual network {names!r} names a network twice; give each once")
    return found
