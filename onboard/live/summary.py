"""What is said when the flight program ends: how it went, and what to set the firmware's delay to."""

from __future__ import annotations

from onboard.live.status import FlyStatus
from onboard.mavlink.tell.latency import VEHICLE_LIMIT_MS

_MUCH_TOO_LONG = 0.7  # a latency that could be shortened by less is left alone


def in_words(status: FlyStatus) -> list[str]:
    """Line by line, of the last status."""
    camera, worker = status.camera, status.worker
    dropped = status.overrun + worker.dropped
    lost = f", {dropped} dropped" if dropped else ""
    lines = [f"Frames: {camera.taken} taken, {worker.done} localized{lost}; {status.fixes} gave a fix."]
    if status.reasons:
        told = sorted(status.reasons.items(), key=lambda item: (-item[1], item[0]))
        lines.append("No fix because: " + ", ".join(f"{reason} {count}" for reason, count in told) + ".")
    return lines + delay_words(status)


def delay_words(status: FlyStatus) -> list[str]:
    """The parameter to set, and whether the configured latency fits what was measured.

    To the vehicle a fix is as old as it was held back, and older by the time on the way: half a round trip.
    """
    link, worker = status.link, status.worker
    lines = []
    if worker.latency_ms is None:
        lines.append("No frame was localized: no latency was measured.")
    else:
        lines.append(
            f"From capture to answer: median {worker.latency_ms[0]:.0f} ms, 95 % within {worker.latency_ms[1]:.0f} ms."
        )
    if link.parameter is None:
        return [*lines, "The vehicle was never known: its delay parameter cannot be named."]
    on_the_way_ms = 0.0 if link.round_trip_ms is None else link.round_trip_ms / 2
    delay_ms = round(link.latency.set_ms + on_the_way_ms)
    lines.append(
        f"Each message told of the moment {link.latency.set_ms:.0f} ms before it left and was {on_the_way_ms:.0f} ms"
        f" on the way: set {link.parameter} to {delay_ms}."
    )
    if delay_ms > VEHICLE_LIMIT_MS:
        lines.append(f"Firmware takes {VEHICLE_LIMIT_MS:.0f} ms at most: lower link.latency_ms.")
    if not link.latency.fixes:
        return lines
    better = f"link.latency_ms {link.latency.recommended_ms:.0f}"
    if link.latency.too_short:
        lines.append(f"Fixes came later than that (95 % within {link.latency.p95_ms:.0f} ms): {better} would fit them.")
    elif link.latency.recommended_ms < _MUCH_TOO_LONG * link.latency.set_ms:
        lines.append(f"Fixes came sooner (95 % within {link.latency.p95_ms:.0f} ms): {better} would do.")
    return lines
