#!/bin/bash
# boot.sh DIR COMMAND...: boot a throw-away guest that prepare.sh made in DIR, run COMMAND there
# with a copy of this project read-only at /project, print its output, return its exit status.
#   SYSTEM_ACCEL    tcg | kvm; only hardware KVM runs these kernels (default: tcg)
#   SYSTEM_TIMEOUT  seconds after which the guest is killed (default: 900)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(realpath "$here/../..")
dir=$(realpath "$1")
shift
case ${SYSTEM_ACCEL:-tcg} in
    kvm) accelerator=(-accel kvm -cpu host) ;;
    *) accelerator=(-accel tcg,thread=multi,tb-size=256 -cpu max,la57=off) ;;
esac
control=$dir/last # logs of the last start stay there
rm -rf "$control"
mkdir -p "$control"
cp "$here/guest-init.sh" "$control/"
printf '%q ' "$@" > "$control/command"

# Compiled here, because the guest is slow: by its own interpreter.
rm -rf "$dir/project"
mkdir -p "$dir/project/tests"
cp -a "$project"/{pyproject.toml,fastprovd} "$dir/project/"
cp -a "$project"/tests/{support,system} "$dir/project/tests/"
find "$dir/project" -name __pycache__ -type d -prune -exec rm -rf {} +
"$here/guest-python.sh" "$dir/root" -m compileall -q -s "$dir" "$dir/project"

shares=()
share() { # TAG FOLDER OPTIONS
    shares+=(-fsdev "local,id=$1,path=$2,security_model=none,multidevs=remap$3"
             -device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}
share guestroot "$dir/root" ,readonly=on
share control "$control" ""
share project "$dir/project" ,readonly=on
# One processor: a second one makes the start slower without hardware virtualisation. No crypto
# self tests, no Spectre mitigations: they cost seconds. The time is that of the HPET: on a busy
# machine the kernel measures its TSC wrongly, and the guest's clock ran 2.6 times too fast.
status=0
timeout "${SYSTEM_TIMEOUT:-900}" qemu-system-x86_64 "${accelerator[@]}" -M q35 -m 1024 -smp 1 \
    -nographic -nodefaults -no-reboot -nic none -monitor none \
    -serial "file:$control/console.log" -serial stdio \
    -kernel "$dir/vmlinux" -initrd "$dir/initrd.gz" \
    -append "console=ttyS0 quiet panic=-1 nokaslr mitigations=off clocksource=hpet \
random.trust_cpu=1 audit=0 apparmor=0 cryptomgr.notests" \
    "${shares[@]}" < /dev/null || status=$?
if [ -s "$control/status" ]; then
    exit "$(cat "$control/status")"
fi
echo "boot.sh: the guest left no exit status (qemu: $status); the end of its console:" >&2
tail -n 15 "$control/console.log" >&2
exit 1
