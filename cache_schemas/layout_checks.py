"""Compare arrays with the contract: their names, dtypes, axes, and scales."""

from collections.abc import Mapping

from cache_schemas.errors import LayoutError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import MODALITIES, AnyArray, group_spec


def bind_axes(
    path: GroupPath, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int] | None = None
) -> tuple[dict[str, int], list[str]]:
    """Compare the shapes of a group's arrays with the axes of the contract.

    `sizes` are the sizes of axes known from other groups. Returns the sizes of all axes, and a sentence for each array
    that does not fit.
    """
    sizes = dict(sizes or {})
    misfits = []
    for name, shape in shapes.items():
        axes = group_spec(path).arrays[name].axes
        if len(axes) != len(shape):
            misfits.append(f"{name} has shape {shape}, the contract says {axes}")
            continue
        for axis, size in zip(axes, shape, strict=True):
            axis, size = ("S", size - 1) if axis == "S+1" else (axis, size)
            expected = axis if isinstance(axis, int) else sizes.setdefault(axis, size)
            if size != expected:
                misfits.append(f"{name} has shape {shape}: axis {axis} is {size} here, elsewhere {expected}")
    return sizes, misfits


def missing_scale(dtypes: Mapping[str, str]) -> list[str]:
    """Return a sentence if `features` are int8 and there is no `features_scale` to decode them."""
    if dtypes.get("features") == "int8" and "features_scale" not in dtypes:
        return ["features are int8, so features_scale is required"]
    return []


def check_arrays(path: GroupPath, arrays: dict[str, AnyArray]) -> None:
    """Check names, dtypes and shapes of the arrays that a group is to hold: all arrays of points, or none.

    Raises:
        LayoutError: with every array that breaks the contract.
    """
    group = group_spec(path)
    specs = group.arrays
    modalities = MODALITIES if group.of_points or any(specs[n].of_points for n in arrays if n in specs) else ("image",)
    problems = [f"unknown array {name}" for name in arrays if name not in specs]
    problems += [f"missing array {name}" for name in specs if name in group.required(modalities) - arrays.keys()]
    known = {name: array for name, array in arrays.items() if name in specs}
    problems += [
        f"{name} is {array.dtype}, the contract says {' or '.join(specs[name].dtypes)}"
        for name, array in known.items()
        if array.dtype.name not in specs[name].dtypes
    ]
    problems += missing_scale({name: array.dtype.name for name, array in known.items()})
    problems += bind_axes(path, {name: array.shape for name, array in known.items()})[1]
    if problems:
        raise LayoutError(f"{path}: " + "; ".join(problems))
