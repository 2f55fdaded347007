"""How numbers are written in all texts of the audit."""


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share as a percentage; `-` if there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}%"


def decimal(value: float | None, digits: int = 2) -> str:
    """Write a number with thousands separators; `-` if there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def share_or_decimal(value: float, is_share: bool) -> str:
    """Write a share as a percentage, another number as a decimal."""
    return percent(value) if is_share else decimal(value)
