"""The address space: Objects / tenant / PLC / group / [machine] / field.

A node's identifier is its path, as text, in the box's namespace:
``acme/prensa-01/db500/m03/ciclos``. Beside the groups stand ``_status`` (what the PLC's heartbeat
says) and, beside the PLCs, ``_alarms``; no such name of a configuration begins with an underscore.

All of it belongs to the server's thread. A value is made when somebody reads it or watches it, not
when it comes: 10,000 values that nobody looks at cost what their message costs to parse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace, AttributeValue, NodeData

from services.publisher.opcua import values
from services.publisher.opcua.points import NULL, STATUS_CELLS, Cell, PlcState, Point, Record
from services.publisher.opcua.values import Reading
from services.s7.field import Field

_A = ua.AttributeIds
_I = ua.ObjectIds
_V = ua.VariantType
STATUS, ALARMS = "_status", "_alarms"
FIRING = "disparando"
"""The word of the alarm engine's wire (services/alerts/core/transition.py)."""
# Of an alarm rule: name -> type.
_ALARM_CELLS = {
    "active": _V.Boolean, "count": _V.UInt32, "acknowledged": _V.Boolean, "severity": _V.String,
    "text": _V.String, "since": _V.DateTime,
}  # fmt: skip

Key = tuple[str, str, str | None]
"""(PLC, group, machine)."""


@dataclass(slots=True)
class _Parent:
    id: ua.NodeId
    data: NodeData


def _const(value: Any, variant: ua.VariantType) -> AttributeValue:
    return AttributeValue(Reading(ua.Variant(value, variant)))


class Space:
    """Our part of a server's address space."""

    def __init__(self, aspace: AddressSpace, namespace: int, has_history: bool = False) -> None:
        """``has_history``: that of fields can be read."""
        self._aspace = aspace
        self.namespace = namespace
        self.records: dict[Key, Record] = {}
        self._plcs: dict[str, PlcState] = {}
        self._alarms: dict[tuple[str, str], dict[str, Cell]] = {}
        """(tenant, rule)."""
        self._descriptions: dict[ua.NodeId, str] = {}
        self._ours: list[ua.NodeId] = []
        self._shown: dict[tuple[str, str], dict[str, Any]] = {}
        """What the cells of ``_alarms`` say."""
        # Shared by all nodes: 14 attributes each of their own would be 8 KB a field.
        self._names: dict[ua.AttributeIds, AttributeValue] = {
            attribute: _called(make)
            for attribute, make in (
                (_A.NodeId, lambda node: ua.Variant(node, _V.NodeId)),
                (_A.BrowseName, lambda n: ua.Variant(self._browse_name(n), _V.QualifiedName)),
                (_A.DisplayName, lambda n: ua.Variant(ua.LocalizedText(_last(n)))),
                (_A.Description, self._description),
            )
        }
        self._names[_A.WriteMask] = self._names[_A.UserWriteMask] = _const(0, _V.UInt32)
        self._object = {
            **self._names,
            _A.NodeClass: _const(ua.NodeClass.Object, _V.Int32),
            _A.EventNotifier: _const(0, _V.Byte),
        }
        read_only = _const(ua.AccessLevel.CurrentRead.mask, _V.Byte)
        self._variable = {
            **self._names,
            _A.NodeClass: _const(ua.NodeClass.Variable, _V.Int32),
            _A.AccessLevel: read_only,
            _A.UserAccessLevel: read_only,
            _A.MinimumSamplingInterval: _const(0.0, _V.Double),
            _A.Historizing: _const(False, _V.Boolean),
        }
        self._field_attributes = self._variable
        if has_history:
            both = ua.AccessLevel.CurrentRead.mask | ua.AccessLevel.HistoryRead.mask
            level = _const(both, _V.Byte)
            self._field_attributes = {
                **self._variable,
                _A.AccessLevel: level,
                _A.UserAccessLevel: level,
                _A.Historizing: _const(True, _V.Boolean),
            }
        self._types: dict[
            tuple[ua.NodeId, tuple[int, ...]], dict[ua.AttributeIds, AttributeValue]
        ] = {}

    # -- what nodes there are ------------------------------------------------------------

    async def configure(
        self, plcs: Iterable[Mapping[str, Any]], alarms: Iterable[tuple[str, str]]
    ) -> None:
        """All nodes, of these PLCs and alarm rules (tenant, name). What stays keeps its value and
        who watches it; who watches what is gone is told so.
        """
        before = dict(self._cells())
        old_records, old_plcs, old_alarms = self.records, self._plcs, self._alarms
        for node in self._ours:
            del self._aspace[node]
        root = self._aspace[ua.NodeId(_I.ObjectsFolder)]
        ours = {node for node in self._ours if "/" not in node.Identifier}
        root.references = [r for r in root.references if r.NodeId not in ours]
        self._ours, self._descriptions = [], {}
        self.records, self._plcs, self._alarms, self._shown = {}, {}, {}, {}
        tenants: dict[str, _Parent] = {}
        top = _Parent(ua.NodeId(_I.ObjectsFolder), root)

        def tenant(name: str) -> _Parent:
            if name not in tenants:
                tenants[name] = self._folder(top, name)
            return tenants[name]

        for plc in plcs:
            state = old_plcs.get(plc["id"])
            if state is None or state.tenant != plc["locatario"]:
                state = PlcState(plc["locatario"])
            self._plcs[plc["id"]] = state
            place = self._folder(tenant(plc["locatario"]), plc["id"])
            self._cell_folder(place, STATUS, STATUS_CELLS, state.cells)
            for group in plc["groups"]:
                self._group(place, plc, group, state, old_records)
        folders: dict[str, _Parent] = {}
        for of, rule in alarms:
            if of not in folders:
                folders[of] = self._folder(tenant(of), ALARMS)
            cells = old_alarms.get((of, rule)) or {name: Cell() for name in _ALARM_CELLS}
            self._alarms[of, rule] = cells
            self._cell_folder(folders[of], rule, _ALARM_CELLS, cells)
        await self._carry_over(before)

    def _cells(self) -> Iterator[tuple[ua.NodeId, Cell]]:
        for node in self._ours:
            cell = self._aspace[node].attributes.get(_A.Value)
            if isinstance(cell, Cell):
                yield node, cell

    async def _carry_over(self, before: Mapping[ua.NodeId, Cell]) -> None:
        for node, old in before.items():
            data = self._aspace.get(node)
            new = data.attributes.get(_A.Value) if data is not None else None
            if new is old:
                continue
            watching = dict(old.datachange_callbacks)
            if isinstance(new, Cell):
                new.datachange_callbacks = watching
                if isinstance(new, Point) and isinstance(old, Point):
                    new.wants_times = old.wants_times
                if watching and isinstance(new, Point):
                    await new.push(new.read())
                continue
            await old.push(Reading(NULL, values.GONE, None, datetime.now(UTC)))
            for handle in watching:
                # asyncua would look for it at the node.
                self._aspace._handle_to_attribute_map.pop(handle, None)

    def _group(
        self,
        place: _Parent,
        plc: Mapping[str, Any],
        group: Mapping[str, Any],
        state: PlcState,
        old: Mapping[Key, Record],
    ) -> None:
        folder = self._folder(place, group["name"])
        fields = [Field.from_dict(dict(f)) for f in group["fields"]]
        kinds = [values.kind(f, group["timezone"]) for f in fields]
        for machine in group["machines"]:
            key = (plc["id"], group["name"], machine)
            record = old.get(key)
            if record is None or record.plc is not state:
                record = Record(state)
            record.points = []
            self.records[key] = record
            parent = self._folder(folder, machine) if machine is not None else folder
            for field, kind in zip(fields, kinds, strict=True):
                point = Point(record, field, kind)
                record.points.append(point)
                self._field(parent, point)

    def _field(self, parent: _Parent, point: Point) -> None:
        field, kind = point.field, point.kind
        is_analog = bool(field.unit)
        made = self._add(
            parent,
            field.name,
            _I.AnalogUnitType if is_analog else _I.BaseDataVariableType,
            {**self._field_attributes, **self._typed(kind.data_type, kind.dims), _A.Value: point},
            _I.HasComponent,
        )
        if field.description:
            self._descriptions[made.id] = field.description
        if is_analog:
            unit = ua.Variant(values.engineering_units(field.unit), _V.ExtensionObject)
            typed = self._typed(ua.NodeId(_I.EUInformation), ())
            value = {_A.Value: AttributeValue(Reading(unit))}
            attributes = {**self._variable, **typed, **value}
            self._add(
                made, "EngineeringUnits", _I.PropertyType, attributes, _I.HasProperty, standard=True
            )

    def _cell_folder(
        self,
        parent: _Parent,
        name: str,
        types: Mapping[str, ua.VariantType],
        cells: Mapping[str, Cell],
    ) -> None:
        folder = self._folder(parent, name)
        for cell, variant in types.items():
            typed = self._typed(ua.NodeId(variant.value), ())
            attributes = {**self._variable, **typed, _A.Value: cells[cell]}
            self._add(folder, cell, _I.BaseDataVariableType, attributes, _I.HasComponent)

    def _typed(
        self, data_type: ua.NodeId, dims: tuple[int, ...]
    ) -> dict[ua.AttributeIds, AttributeValue]:
        found = self._types.get((data_type, dims))
        if found is None:
            found = {
                _A.DataType: _const(data_type, _V.NodeId),
                _A.ValueRank: _const(len(dims) or -1, _V.Int32),
            }
            if dims:
                found[_A.ArrayDimensions] = AttributeValue(
                    Reading(ua.Variant(list(dims), _V.UInt32, None, True))
                )
            self._types[data_type, dims] = found
        return found

    def _folder(self, parent: _Parent, name: str) -> _Parent:
        return self._add(parent, name, _I.FolderType, self._object, _I.Organizes)

    def _add(
        self,
        parent: _Parent,
        name: str,
        of_type: int,
        attributes: dict[ua.AttributeIds, AttributeValue],
        reference: int,
        standard: bool = False,
    ) -> _Parent:
        """``standard``: the name is the specification's, not ours."""
        path = f"{parent.id.Identifier}/{name}" if parent.id.NamespaceIndex else name
        node = ua.NodeId(path, self.namespace, ua.NodeIdType.String)
        data = NodeData(node)
        data.attributes = attributes
        if standard:
            browse_name = ua.QualifiedName(name, 0)
            named = _const(browse_name, _V.QualifiedName)
            data.attributes = {**attributes, _A.BrowseName: named}
        else:
            browse_name = ua.QualifiedName(name, self.namespace)
        is_object = attributes is self._object
        parent_class = ua.NodeClass.Variable if standard else ua.NodeClass.Object
        parent.data.references.append(
            ua.ReferenceDescription(
                ReferenceTypeId=ua.NodeId(reference),
                IsForward=True,
                NodeId=node,
                BrowseName=browse_name,
                DisplayName=ua.LocalizedText(name),
                NodeClass=ua.NodeClass.Object if is_object else ua.NodeClass.Variable,
                TypeDefinition=ua.NodeId(of_type),
            )
        )
        kind = self._aspace[ua.NodeId(of_type)]
        kind_name = kind.attributes[_A.BrowseName].value
        is_object_type = of_type == _I.FolderType
        data.references = [
            ua.ReferenceDescription(
                ReferenceTypeId=ua.NodeId(_I.HasTypeDefinition),
                IsForward=True,
                NodeId=ua.NodeId(of_type),
                BrowseName=kind_name.Value.Value,
                DisplayName=ua.LocalizedText(kind_name.Value.Value.Name),
                NodeClass=ua.NodeClass.ObjectType if is_object_type else ua.NodeClass.VariableType,
            ),
            ua.ReferenceDescription(
                ReferenceTypeId=ua.NodeId(reference),
                IsForward=False,
                NodeId=parent.id,
                BrowseName=self._browse_name(parent.id),
                DisplayName=ua.LocalizedText(_last(parent.id)),
                NodeClass=parent_class,
            ),
        ]
        self._aspace[node] = data
        self._ours.append(node)
        return _Parent(node, data)

    def _browse_name(self, node: ua.NodeId) -> ua.QualifiedName:
        return ua.QualifiedName(_last(node), node.NamespaceIndex)

    def _description(self, node: ua.NodeId) -> ua.Variant:
        return ua.Variant(ua.LocalizedText(self._descriptions.get(node)))

    # -- what they hold ------------------------------------------------------------------

    async def take(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """The newest message of each of some records; others that nobody configured pass by."""
        now = datetime.now(UTC)
        for message in messages:
            record = self.records.get(key_of(message))
            if record is None or record.plc.tenant != message["locatario_id"]:
                continue
            if record.take(message, now):
                await record.push()

    async def beat(self, plc: str, heartbeat: Mapping[str, Any]) -> None:
        """A PLC's heartbeat."""
        state = self._plcs.get(plc)
        if state is None or state.tenant != heartbeat["locatario_id"]:
            return
        time, now = values.time_of(heartbeat["ts"]), datetime.now(UTC)
        failure = heartbeat.get("failure") or {}
        said = ": ".join(failure[k] for k in ("code", "message") if failure.get(k))
        for name, variant in STATUS_CELLS.items():
            value = said if name == "failure" else heartbeat.get(name)
            shown = ua.Variant(value, variant) if value is not None else NULL
            code = values.GOOD if value is not None else values.NO_COMMUNICATION
            await state.cells[name].set(Reading(shown, code, time, now))
        offline = heartbeat["status"] == "offline"
        if offline != state.offline:
            state.offline = offline
            for record in self.records.values():
                if record.plc is state:
                    await record.push()

    async def ring(self, alarms: Iterable[Mapping[str, Any]] | None) -> None:
        """What the alarm engine says rings; None where it does not answer."""
        now = datetime.now(UTC)
        if alarms is None:
            self._shown.clear()
            lost = Reading(NULL, values.NO_COMMUNICATION, None, now)
            for cells in self._alarms.values():
                for cell in cells.values():
                    await cell.set(lost)
            return
        by_rule: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for alarm in alarms:
            if alarm["state"] == FIRING:
                by_rule.setdefault((alarm["locatario"], alarm["rule"]), []).append(alarm)
        for key, cells in self._alarms.items():
            found = by_rule.get(key, [])
            first = found[0] if found else {}
            since = values.time_of(first["since"]) if found else None
            shown: dict[str, Any] = {
                "active": bool(found),
                "count": len(found),
                "acknowledged": bool(found) and all(a["confirmado"] for a in found),
                "severity": first.get("severity", ""),
                "text": first.get("text", ""),
                "since": since,
            }
            if shown == self._shown.get(key):
                continue
            self._shown[key] = shown
            for name, variant in _ALARM_CELLS.items():
                value = shown[name]
                told = NULL if value is None else ua.Variant(value, variant)
                await cells[name].set(Reading(told, values.GOOD, since, now))


def _called(make: Any) -> AttributeValue:
    """An attribute that is made from the node's identifier."""
    attribute = AttributeValue(Reading(NULL))
    attribute.value_callback = lambda node, _attribute: Reading(make(node))
    return attribute


def _last(node: ua.NodeId) -> str:
    if not node.NamespaceIndex:
        return "Objects"
    return str(node.Identifier).rsplit("/", 1)[-1]


def key_of(message: Mapping[str, Any]) -> Key:
    """Whose message it is."""
    return message["plc_id"], message["group"], message.get("machine")
