#!/bin/bash
# guest-python.sh ROOT ARGUMENTS...: run the Python of an unpacked guest on this machine.
set -euo pipefail
root=$1
shift
PYTHONHOME=$root/usr exec "$root/lib64/ld-linux-x86-64.so.2" \
    --library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/python3" "$@"
