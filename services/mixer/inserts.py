"""Gives slots of a decided plan to the plugins of a preset.

What the planner decided for a slot becomes the plugin's stand-in, and where the plugin has a mapping, its settings. The
plan then holds the plugin as data: which parameters it gets can be read, and edited, before anything is rendered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from outboard.audio.plugins.facts import PluginChoice
from outboard.audio.plugins.mappings import Unmapped, mapped
from outboard.audio.plugins.rack import PluginRack
from outboard.audio.processors import Plugin, Processor, member_name
from outboard.audio.reporting import Warning
from outboard.errors import InvalidInput, Violation
from outboard.presets import nearest
from outboard.presets.keys import ROLES
from services.mixer.check import MIX_NAME, MOST_PLUGINS
from services.mixer.console import INSERT, MixPlan

UNMAPPED = "PLUGIN_UNMAPPED"
"""Code of the warning that an installed plugin cannot be set to what its slot does."""
_BUS_SUFFIX = "_bus"


class Inserts:
    """The plugins of one preset.

    Args:
        plugins: by slot, as `outboard.presets.plugins` reads them.
        rack: what knows the plugins of this machine.
        labels: of the planner's processors.
        buses: names of the planner's buses.
        path: of the preset's plugins in the request.

    Raises:
        InvalidInput: PRESET_INVALID: a slot that there is not, or a parameter that an installed plugin does not have
            or take: one violation each.
    """

    def __init__(
        self,
        plugins: Mapping[str, PluginChoice],
        rack: PluginRack,
        labels: Sequence[str],
        buses: Sequence[str],
        path: str = "preset.plugins",
    ) -> None:
        self._wanted = {slot: plugin for slot, plugin in plugins.items() if plugin.name}
        self._rack = rack
        self._count = 0
        self.notes: list[str] = []
        self.warnings: list[Warning] = []
        wrong: list[Violation] = []
        for slot, plugin in sorted(self._wanted.items()):
            where = f"{path}[{slot}]"
            if told := _slot_fault(slot, labels, buses):
                wrong.append(Violation(where, told))
            wrong += rack.check(plugin.name, plugin.parameters, plugin.choices, where)
        if wrong:
            raise InvalidInput(wrong[0].description, reason="PRESET_INVALID", violations=wrong)

    def into(self, plan: MixPlan, bypass: Collection[str] = ()) -> MixPlan:
        """The plan with its slots given to the plugins.

        Args:
            plan: what the planner decided.
            bypass: labels that are left out; ``insert`` is one.
        """
        if not self._wanted:
            return plan
        decided = replace(
            plan,
            strips=tuple(replace(s, chain=self._chain(s.chain, s.role, s.stem, bypass)) for s in plan.strips),
            buses=tuple(
                replace(b, chain=self._chain(b.chain, b.name + _BUS_SUFFIX, b.name, bypass)) for b in plan.buses
            ),
            master_chain=self._chain(plan.master_chain, MIX_NAME, MIX_NAME, bypass),
        )
        return replace(decided, notes=(*plan.notes, *self.notes))

    def _chain(
        self, chain: tuple[Processor, ...], place: str, name: str, bypass: Collection[str]
    ) -> tuple[Processor, ...]:
        slots = tuple(self._slot(processor, place, name) for processor in chain)
        own = self._wanted.get(f"{place}.{INSERT}")
        if own is None:
            return slots
        if self._is_one_too_many(name, INSERT):
            return slots
        self.notes.append(f"{name}: {own.name} has a slot of its own at the end.")
        return (*slots, Processor(INSERT, Plugin(own.name, own.parameters, own.choices), bypass=INSERT in bypass))

    def _slot(self, processor: Processor, place: str, name: str) -> Processor:
        label = processor.label
        plugin = self._wanted.get(f"{place}.{label}", self._wanted.get(label))
        if plugin is None or self._is_one_too_many(name, label):
            return processor
        facts = self._rack.facts(plugin.name)
        numbers: Mapping[str, float] = {}
        choices: Mapping[str, str] = {}
        if facts.usable:
            try:
                numbers, choices = mapped(facts, processor.kind)
            except Unmapped as error:
                told = f"{name}: the native {label} stays, as {error}."
                self.notes.append(told)
                self.warnings.append(Warning(UNMAPPED, told, name))
                return processor
        self.notes.append(f"{name}: {plugin.name} has the slot of the native {member_name(processor.kind)} ({label}).")
        given = Plugin(
            plugin.name,
            parameters={**numbers, **plugin.parameters},
            choices={**choices, **plugin.choices},
            stand_in=replace(processor, bypass=False),
        )
        return Processor(label, given, processor.bypass)

    def _is_one_too_many(self, name: str, label: str) -> bool:
        self._count += 1
        if self._count > MOST_PLUGINS:
            self.notes.append(f"{name}: no plugin for {label}, as a mix has at most {MOST_PLUGINS}.")
        return self._count > MOST_PLUGINS


def _slot_fault(slot: str, labels: Sequence[str], buses: Sequence[str]) -> str:
    """What is wrong with the name of a slot; empty where nothing is."""
    places = (*ROLES, *(bus + _BUS_SUFFIX for bus in buses), MIX_NAME)
    place, _, label = slot.rpartition(".")
    if label.endswith(("_sidechain", "masking")):
        return f"{slot!r} follows another strip, which no plugin can: it hears its own signal only"
    if label not in labels:
        return f"there is no slot {label!r}{nearest(label, labels)}: there are {', '.join(labels)}"
    if place and place not in places:
        return f"there is no place {place!r}{nearest(place, places)}: there are {', '.join(places)}"
    if label == INSERT and not place:
        return f"an insert needs its place, for instance 'mix.insert': there are {', '.join(places)}"
    return ""
