"""Composition Data Page 0: elements and their models (Mesh Profile v1.0.1 §4.2.1).

Little-endian; a vendor model is its Company Identifier, then its number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

from fastprovd.errors import DecodeError, LocalProtocolError


@dataclass(frozen=True, slots=True)
class Model:
    """A model of an element; `company_id` is `None` for a model of the Bluetooth SIG."""

    model_id: int
    company_id: int | None = None


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its location descriptor and its models, those of the SIG first."""

    location: int
    models: tuple[Model, ...]


@dataclass(frozen=True, slots=True)
class CompositionData:
    """Composition Data Page 0; field names are those of the specification, `features` a bit set.

    Features: bit 0 relay, 1 proxy, 2 friend, 3 low power.
    """

    PAGE: ClassVar[int] = 0
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<HHHHH")
    ELEMENT_LAYOUT: ClassVar[struct.Struct] = struct.Struct("<HBB")

    cid: int
    pid: int
    vid: int
    crpl: int
    features: int
    elements: tuple[Element, ...]

    def encode(self) -> bytes:
        """Return the page; raises LocalProtocolError for a number that does not fit its field."""
        try:
            octets = self.LAYOUT.pack(self.cid, self.pid, self.vid, self.crpl, self.features)
            for element in self.elements:
                sig = [model.model_id for model in element.models if model.company_id is None]
                vendor = [
                    number
                    for model in element.models
                    if model.company_id is not None
                    for number in (model.company_id, model.model_id)
                ]
                octets += self.ELEMENT_LAYOUT.pack(element.location, len(sig), len(vendor) // 2)
                octets += struct.pack(f"<{len(sig) + len(vendor)}H", *sig, *vendor)
        except struct.error as error:
            raise LocalProtocolError(f"Composition Data: {error}") from error
        return octets

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the page, at least its header and one whole element; raises DecodeError."""
        if len(data) < cls.LAYOUT.size + cls.ELEMENT_LAYOUT.size:
            raise DecodeError(
                f"Composition Data Page 0 needs at least 14 octets, got {len(data)} octets"
            )
        elements: list[Element] = []
        at = cls.LAYOUT.size
        while at < len(data):
            if len(data) < at + cls.ELEMENT_LAYOUT.size:
                raise DecodeError(f"element {len(elements)} of the Composition Data is cut")
            location, sig_count, vendor_count = cls.ELEMENT_LAYOUT.unpack_from(data, at)
            at += cls.ELEMENT_LAYOUT.size
            numbers = struct.Struct(f"<{sig_count + 2 * vendor_count}H")
            if len(data) < at + numbers.size:
                raise DecodeError(f"the models of element {len(elements)} are cut")
            ids = numbers.unpack_from(data, at)
            at += numbers.size
            vendor = ids[sig_count:]
            elements.append(
                Element(
                    location,
                    tuple(Model(model_id) for model_id in ids[:sig_count])
                    + tuple(
                        Model(model_id, company_id)
                        for company_id, model_id in zip(vendor[::2], vendor[1::2], strict=True)
                    ),
                )
            )
        cid, pid, vid, crpl, features = cls.LAYOUT.unpack_from(data)
        return cls(cid, pid, vid, crpl, features, tuple(elements))
