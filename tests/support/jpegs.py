"""JPEGs whose colours are sampled as Pillow cannot write them, and ways to put junk into a JPEG.

``cjpeg -quality 60 -optimize -sample 4x2,1x1,1x1`` and so on of libjpeg-turbo 2.1 wrote the files from ``RAMP``.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

_Y, _X = np.mgrid[:24, :40]
RAMP = np.stack([_X * 5 + 20, _Y * 8 + 30, 200 - _X * 2 - _Y * 2], -1).astype(np.uint8)
_RARE = {
    "4x2,1x1,1x1": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWM"
        "T47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2A"
        "01*fP7yu{(0YU%*5di}c0sq7R7ytnQ0RaI30000000000000030tE*D!~ho%0RRI400000000000000000IPI|HJ?n0RRI500000"
        "0000000000009LC1OLPT8xa5k0s{d60000000000000040RjUNAu<2j01N{G00I#M5dc2`^DwWALcT8w__QnIaIcF(zAp;+v@7A0"
        "O#v1>Iq<K5I?%6x6U$vF>c<R1zAXy)yes0+uYe4i$zl;3+l8TD001bQmf1yH&X51u"
    ),
    "4x2,1x1,1x1 progressive": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWM"
        "T47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2C"
        "01*fP7yu{(0YU%*5di}c0sq7R7ytnQ0RaI30000000000000021OWyA!~hoo00RL40000000000000000R#mC|Jncy0|5X65CaeZ"
        "00HwZ?yl{ToNEcv<=uuL*aay60RO}Q6%YXd0000000000000000000I|Jncu0RaF31p<_%DN0h5r722Z|HJ?m5di@K0000000000"
        "0000000964|Jncu0RsU6KLNu?(!pWB|HJ?p5dZ@K0{{R30000000000000340umGd+5iXv0s#R(0j*A@a%Rl`!~hf!0RR9100000"
        "0000000000F#p;B2mt{A20sFS|HJ?l5CH)I00000000000000000061+5iXv0RRC%A%r0aLJ))@2tptK+5ij#0RRF30{{R35Ho+n"
        "{{a2}!~hr(0RRI5000000000000000009vpG5^{C2mu2D0Y4Dn!HF$D|HJ?o5dZ=M0000000000000000003H5h4HD00;pB0RcY{"
        "2dECi|HJ?l5CH)I000000000000000003eC+5iXv0RRC%5RyqGl1U_zNhFd<KmXY"
    ),
    "1x4,1x1,1x1": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWM"
        "T47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2A"
        "01*fP7yu{(0TciN5di}c0sq7R761VO0RR910000000000000F52LHqW7Z3mg0RR910000000000000021Y!Tg02KiN0RR9100000"
        "00000000041^>hV77+mf0RR910000000000000621pnFq3<CiG0ucid06zfCr1&h8;IdDIQCrmjZB}I`!DOEWl6)Y`dYCq=G?U=6"
        "PlCxl5Ouvx8&#P}@L4CpWS<B!-lh$z%%u1%li;#XgdJ~F2GxK6*#"
    ),
    "3x1,1x1,1x1": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWM"
        "T47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2A"
        "01*fP7yu{(0Wkmq5di}c0sq7R7XSeP0RaF20000000000000930tWxY02dGd0|5X40000000000000000t8|I!~hoo0RaI400000"
        "00000000001_c8E|HJ?o5di@K0RaF2000000000000RI7AtL|U01N{G00I#M5dc2`=2CnaC&AKuFFM_oCQ0yQp9qet*&cNBVJE?o"
        "d>tplcUX2*nJ2-Ld?G@xWLeYAgr5dU@N}OI-C@~MWS<5}@QCWYk!Mdg|Je"
    ),
    "1x1,2x2,2x2": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWM"
        "T47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2A"
        "01*fP7yu{(0TBQKA^`&;0sq7R6#xMN000000000000000000C9|HJ?t5C8%J1Oos70000000000000980ufPSAu%%l!~hoo0RaI4"
        "0000000000000001ONpF|HJ?m5di@K00000000000000000065|Jncy0|5X65d#qbKLC!X{Z5{>8nqs^8nq5IGBjewhDL^}KT$QP"
        ")u{ET^{Z|)GBjdFhDL=`AIFgus%KWIw;CWLL~@e68a1f(s!jqlGBillA$Sd1k6NT;Xl!VabfI?WHENPFG)X`I*#"
    ),
    "2x2,2x1,1x1": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWM"
        "T47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2A"
        "01*fP7yu{(0U`hbAprvs0sq7R82|wR0RRI40000000000000031p)*H|HJ?n5C8)K00000000000000000066VgJMc7y$tR0RaI3"
        "0000000000000C900RgA!~hx*0RaI400RI300000000000ssR90TChp+5ij#0RRFK0}%i}0P`t67D@2XN$|2yh2_;9bwb0U=p^`A"
        "C&NJ}!pS}cT~XInV-AZwC%|hY_yex1RYyn5f=`8#d;sdSQPzs{oFAI$J{C#v0Lw)kXsb9iStq~%WumoIHR}J_"
    ),
}
RARE = {name: base64.b85decode(text) for name, text in _RARE.items()}
""" "1x4" alone is known to TurboJPEG, but not to simplejpeg."""


def saved(mode: str = "RGB", size: int = 1, **options: Any) -> bytes:
    """``size`` x ``size`` ramps, by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RAMP, (size, size, 1))).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def places(data: bytes, *markers: int) -> list[int]:
    """Where one of the markers begins, EXIF and comments not being looked into."""
    return [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] in markers]


def inserted(data: bytes, at: int, more: bytes) -> bytes:
    return data[:at] + more + data[at:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


NOISE = bytes(random.Random(5).choices([*range(255)], k=300))
"""No 0xFF among it."""


def _before(marker: int, more: bytes) -> Callable[[bytes], bytes]:
    return lambda data: inserted(data, places(data, marker)[-1], more)


def _odd_scan_parameters(data: bytes) -> bytes:
    """As cameras write them: where the spectrum ends is 0."""
    scan = places(data, 0xDA)[0]
    end = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    return data[: end - 3] + bytes(3) + data[end:]


def _odd_adobe_transform(data: bytes) -> bytes:
    """JFIF, which says the same, would be believed first."""
    table = places(data, 0xDB)[0]
    return data[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\x07") + data[table:]


JUNK: dict[str, Callable[[bytes], bytes]] = {
    "zeros before the end": _before(0xD9, bytes(8)),
    "more zeros before the end": _before(0xD9, bytes(3000)),
    "noise before the end": _before(0xD9, NOISE),
    "stuffed bytes before the end": _before(0xD9, b"\xff\0" * 40),
    "zeros before a table": _before(0xC4, bytes(3)),
    "noise before a table": _before(0xDB, NOISE),
    "a restart marker and noise before a table": _before(0xDB, b"\xff\xd3" + NOISE),
    "JFIF 0.1": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\0"),
    "JFIF 2.1": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\2"),
    "an Adobe transform that does not exist": _odd_adobe_transform,
    "a profile of which a part is missing": _before(0xDB, segment(0xE2, b"ICC_PROFILE\0\1\2" + NOISE)),
    "a profile in parts of the same number": _before(0xDB, 2 * segment(0xE2, b"ICC_PROFILE\0\1\2" + NOISE)),
    "odd parameters of the scan": _odd_scan_parameters,
    "much behind the end": lambda data: data + NOISE,
    "two kinds": lambda data: _before(0xD9, NOISE)(_before(0xDB, NOISE)(data)),
}
