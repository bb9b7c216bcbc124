#!/bin/bash
# run.sh SUITE [PYTEST OPTIONS]: run the system test in a guest of that Debian release (bookworm,
# trixie). The guest is prepared once for each release and set of packages, under .system-test/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(realpath "$here/../..")
suite=$1
shift
cd "$project"

# program:package
tools=(qemu-system-x86_64:qemu-system-x86 cpio:cpio modprobe:kmod xz:xz-utils zstd:zstd)
packages=()
for tool in "${tools[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" > /dev/null || packages+=("${tool##*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    echo "system-test: installing ${packages[*]}" >&2
    if ! { "${as_root[@]}" apt-get -qq update &&
           "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
               apt-get -qq install -y --no-install-recommends "${packages[@]}" > /dev/null; }; then
        if command -v qemu-system-x86_64 > /dev/null; then
            echo "system-test: ${packages[*]} can not be installed: install them, run it again" >&2
            exit 1
        fi
        cat >&2 <<END
********************************************************************************
**                                                                            **
**  system-test SKIPPED: nothing was tested against the real bluetoothd.      **
**                                                                            **
**  QEMU is missing, and apt-get could not install it; its words are above.   **
**  Install what is missing and run it again:                                 **
**                                                                            **
********************************************************************************
    sudo apt-get install ${packages[*]}
END
        exit 0
    fi
fi
export PATH=$PATH:/usr/sbin:/sbin

python=${SYSTEM_PYTHON:-python3}
key=$({ "$python" "$here/requirements.py" pyproject.toml
        cat "$here"/{prepare.sh,guest-python.sh,initramfs-init.sh,extract_kernel.py}; } | sha256sum | cut -c 1-12)
dir=.system-test/$suite-$key
if [ ! -e "$dir" ]; then
    echo "system-test: preparing a guest of $suite" >&2
    rm -rf ".system-test/$suite-"* # of other versions, or begun and not finished
    start=$SECONDS
    "$here/prepare.sh" "$dir.begun" "$suite"
    mv "$dir.begun" "$dir"
    echo "system-test: prepared in $((SECONDS - start)) s" >&2
fi
echo "system-test: $suite with BlueZ $(cat "$dir/bluez-version"), logs in $dir/last" >&2
start=$SECONDS
status=0
"$here/boot.sh" "$dir" env FASTPROVD_GUEST=1 tests/system/guest-pytest.sh "$@" || status=$?
echo "system-test: $suite ended with status $status after $((SECONDS - start)) s" >&2
exit "$status"
