"""Sentences that the page and the terminal share."""

from cache_schemas.names import printable
from labelgen.inspection.formatting import decimal, percent, share_or_decimal
from labelgen.inspection.report import Outlier, SampleMeasures, Selection, ShardErrors, TeacherNetworks

UNTRAINED = "these labels mean nothing; they only show geometry and data flow"


def describe_teachers(teachers: TeacherNetworks) -> str:
    """Return preset, architectures and weights of the teachers in one line."""
    networks = [
        f"{name.upper()} {network.architecture} ({network.weights})" for name, network in teachers.networks.items()
    ]
    return f"{teachers.preset}: {', '.join(networks)}"


def describe_selection(selection: Selection) -> str:
    """Say which samples were selected."""
    parts = [f"the samples {', '.join(selection.samples)}"] if selection.samples else []
    parts += [f"samples with {selection.class_name}"] if selection.class_name else []
    parts += [f"the worst {selection.worst}"] if selection.worst else []
    return "; ".join(parts)


def describe_outlier(outlier: Outlier) -> str:
    """Say by which measure a shard stands out."""
    value = share_or_decimal(outlier.value, outlier.is_share)
    return f"{outlier.title}: {value}, the median is {share_or_decimal(outlier.usual, outlier.is_share)}"


def describe_sample(sample: SampleMeasures) -> str:
    """Say how good or unusual a sample is."""
    measures = sample.measures
    units = {"pixel_accuracy": "pixels", "point_accuracy": "points"}
    parts = [
        f"{percent(measures[name])} of its {unit} are right"
        for name, unit in units.items()
        if measures[name] is not None
    ]
    parts += [
        f"{decimal(measures['masks_per_image'], 1)} masks an image",
        f"the vote changed {percent(measures['changed'])}",
        f"cameras disagree on {percent(measures['camera_disagreement'])}",
    ]
    return ", ".join(parts)


def describe_errors(errors: ShardErrors) -> str:
    """Say how many of a class's errors a shard has, and which one is most frequent there."""
    return f"{printable(errors.shard)}: {errors.share:.0%} of its errors, mostly {errors.confusion}"


def size_range(lower: float, upper: float) -> str:
    """Write a range of shares of the picture."""
    return f"{100 * lower:g}% to {100 * upper:g}%"
