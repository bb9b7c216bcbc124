"""Unpack the ELF image of a Linux kernel: `extract_kernel.py VMLINUZ VMLINUX`."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

image = Path(sys.argv[1]).read_bytes()
# Linux/x86 boot protocol: setup_sects at 0x1f1, payload_offset and payload_length at 0x248.
offset, length = struct.unpack_from("<II", image, 0x248)
start = (image[0x1F1] + 1) * 512 + offset
payload = image[start : start + length]
unpack = "zstd" if payload.startswith(b"\x28\xb5\x2f\xfd") else "xz"
# The build appends the size in four octets, which the tool takes for garbage: no check=True.
elf = subprocess.run([unpack, "-dc"], input=payload, capture_output=True, check=False).stdout
if not elf.startswith(b"\x7fELF"):
    sys.exit(f"{sys.argv[1]}: no kernel that {unpack} can unpack")
Path(sys.argv[2]).write_bytes(elf)
