"""How amounts are written in a terminal."""

_MICROUSD_PER_USD = 1_000_000


def dollars(amount_microusd: int) -> str:
    """Write micro-dollars as dollars, every digit of them: -1234 is -$0.001234."""
    whole, fraction = divmod(abs(amount_microusd), _MICROUSD_PER_USD)
    return f"{_sign(amount_microusd)}${whole:,}.{fraction:06}"


def cents(amount: int) -> str:
    """Write cents as dollars."""
    whole, fraction = divmod(abs(amount), 100)
    return f"{_sign(amount)}${whole:,}.{fraction:02}"


def _sign(amount: int) -> str:
    return "-" if amount < 0 else ""
