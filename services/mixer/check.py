"""Refuses a plan that cannot be rendered, before the first stem is sent.

A plan is data from outside: it may have been edited, or written by another program. What passes here renders to finite
sound; what does not is told field by field, with the value and what it may be.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator

from outboard.audio.plugins.rack import PluginRack
from outboard.audio.processor_ranges import GAIN_DB, chain_violations, number_violation
from outboard.audio.processors import Plugin
from outboard.audio.stems import MAXIMUM_STEMS
from outboard.errors import InvalidInput, Violation
from outboard.presets import nearest
from services.mixer.console import Bus, MixPlan, Strip

MIX_NAME = "mix"
"""What reports call the stereo sum: no bus may."""
MOST_BUSES = 16
MOST_PLUGINS = 24
MOST_ENVELOPE_POINTS = 10_000
PEAK_TARGET_DBFS_RANGE = (-40.0, 0.0)


def check_plan(plan: MixPlan, stems: Collection[str], sample_rate_hertz: int, path: str = "plan.") -> None:
    """Refuses a plan that is not for these stems, or that holds a number no processor can render.

    Args:
        plan: any.
        stems: names of the stems it is for.
        sample_rate_hertz: of the mix.
        path: of the plan in the request, with a dot at its end.

    Raises:
        InvalidInput: INVALID_ARGUMENT, with one violation per field.
    """
    buses = [bus.name for bus in plan.buses]
    keys = {*stems, *buses}
    wrong = list(_stem_violations(plan, stems, path))
    for index, strip in enumerate(plan.strips):
        where = f"{path}strips[{index}]"
        wrong += _strip_violations(strip, where, buses)
        wrong += chain_violations(strip.chain, f"{where}.chain", sample_rate_hertz, keys)
    wrong += _bus_violations(plan.buses, path)
    for index, bus in enumerate(plan.buses):
        wrong += chain_violations(bus.chain, f"{path}buses[{index}].chain", sample_rate_hertz, keys)
    wrong += chain_violations(plan.master_chain, f"{path}master_chain", sample_rate_hertz, keys)
    wrong += _plugin_violations(plan, path)
    wrong += number_violation(f"{path}trim_db", plan.trim_db, *GAIN_DB, "dB")
    if plan.peak_target_dbfs is not None:
        wrong += number_violation(f"{path}peak_target_dbfs", plan.peak_target_dbfs, *PEAK_TARGET_DBFS_RANGE, "dBFS")
    if wrong:
        raise InvalidInput(f"{wrong[0].field}: {wrong[0].description}", violations=wrong)


def _stem_violations(plan: MixPlan, stems: Collection[str], path: str) -> Iterator[Violation]:
    named = sorted(strip.stem for strip in plan.strips)
    if not 1 <= len(named) <= MAXIMUM_STEMS:
        yield Violation(f"{path}strips", f"a plan has 1 to {MAXIMUM_STEMS} strips, not {len(named)}")
        return
    for index, strip in enumerate(plan.strips):
        if strip.stem not in stems:
            text = f"there is no stem {strip.stem!r}{nearest(strip.stem, stems)}: there are {', '.join(sorted(stems))}"
            yield Violation(f"{path}strips[{index}].stem", text)
    repeated = _repeated(iter(named))
    for name in repeated:
        yield Violation(f"{path}strips", f"the stem {name!r} has more than one strip")
    missing = sorted(set(stems) - set(named))
    if missing and not repeated and set(named) <= set(stems):  # else it goes by one of the names told above
        yield Violation(f"{path}strips", f"the plan has no strip for {', '.join(map(repr, missing))}")


def _strip_violations(strip: Strip, path: str, buses: Collection[str]) -> Iterator[Violation]:
    yield from number_violation(f"{path}.gain_db", strip.gain_db, *GAIN_DB, "dB")
    yield from number_violation(f"{path}.pan", strip.pan, -1.0, 1.0)
    if strip.bus and strip.bus not in buses:
        yield Violation(f"{path}.bus", f"the plan has no bus {strip.bus!r}")
    for name in _repeated(send.bus for send in strip.sends):
        yield Violation(f"{path}.sends", f"{name!r} is sent to more than once")
    for index, send in enumerate(strip.sends):
        where = f"{path}.sends[{index}]"
        yield from number_violation(f"{where}.level_db", send.level_db, *GAIN_DB, "dB")
        if send.bus not in buses:
            yield Violation(f"{where}.bus", f"the plan has no bus {send.bus!r}")
    yield from _envelope_violations(strip, f"{path}.envelope")


def _envelope_violations(strip: Strip, path: str) -> Iterator[Violation]:
    points = strip.envelope
    if len(points) > MOST_ENVELOPE_POINTS:
        yield Violation(path, f"an envelope has at most {MOST_ENVELOPE_POINTS} points, not {len(points)}")
        return
    for index, point in enumerate(points):
        yield from number_violation(f"{path}[{index}].gain_db", point.gain_db, *GAIN_DB, "dB")
    frames = [point.frame for point in points]
    if any(frame < 0 for frame in frames) or any(high <= low for low, high in itertools.pairwise(frames)):
        yield Violation(path, "points need rising frames from 0 on")


def _bus_violations(buses: tuple[Bus, ...], path: str) -> Iterator[Violation]:
    if len(buses) > MOST_BUSES:
        yield Violation(f"{path}buses", f"a plan has at most {MOST_BUSES} buses, not {len(buses)}")
    for name in _repeated(bus.name for bus in buses):
        yield Violation(f"{path}buses", f"more than one bus is called {name!r}")
    for index, bus in enumerate(buses):
        where = f"{path}buses[{index}]"
        if bus.name in ("", MIX_NAME):
            yield Violation(f"{where}.name", f"a bus needs a name of its own, not {bus.name!r}")
        yield from number_violation(f"{where}.gain_db", bus.gain_db, *GAIN_DB, "dB")


def _plugin_violations(plan: MixPlan, path: str) -> Iterator[Violation]:
    count = sum(1 for _ in plugin_slots(plan, path))
    if count > MOST_PLUGINS:
        text = f"a plan has at most {MOST_PLUGINS} plugins, not {count}: each runs in a process of its own"
        yield Violation(f"{path}strips", text)


def check_plan_plugins(plan: MixPlan, plugins: PluginRack, path: str = "plan.") -> None:
    """Refuses parameters that a plugin which is installed here does not have or take.

    Raises:
        InvalidInput: the nearest name, or the range, in one violation per parameter.
    """
    wrong = [
        violation
        for where, plugin in plugin_slots(plan, path)
        for violation in plugins.check(plugin.name, plugin.parameters, plugin.choices, where)
    ]
    if wrong:
        raise InvalidInput(f"{wrong[0].field}: {wrong[0].description}", violations=wrong)


def plugin_slots(plan: MixPlan, path: str) -> Iterator[tuple[str, Plugin]]:
    """Every plugin of a plan with its place."""
    chains = [(f"{path}strips[{index}].chain", strip.chain) for index, strip in enumerate(plan.strips)]
    chains += [(f"{path}buses[{index}].chain", bus.chain) for index, bus in enumerate(plan.buses)]
    for where, chain in (*chains, (f"{path}master_chain", plan.master_chain)):
        for index, slot in enumerate(chain):
            if isinstance(slot.kind, Plugin):
                yield f"{where}[{index}].plugin", slot.kind


def _repeated(names: Iterator[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
