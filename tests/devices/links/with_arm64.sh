#!/usr/bin/env bash
# Run a command while the kernel hands aarch64 programs to qemu (10 or newer: 7.2 crashes in LiteRT): with_arm64.sh COMMAND...
# The registration is global and ends with the command; mounts are the command's own. Needs root.
set -euo pipefail
rule=/usr/lib/binfmt.d/qemu-aarch64.conf
registry=/proc/sys/fs/binfmt_misc
if [ "${POCKETBERT_MOUNTS:-}" != own ]; then
    command -v mmdebstrap >/dev/null && [ -e "$rule" ] && qemu-aarch64 --version | grep -Eq 'version [1-9][0-9]' || {
        echo "error: qemu 10 and mmdebstrap are needed. Run: apt-get install --no-install-recommends mmdebstrap" \
            "&& apt-get install --no-install-recommends -t bookworm-backports qemu-user qemu-user-binfmt" >&2
        exit 1
    }
    exec env POCKETBERT_MOUNTS=own unshare --mount "$0" "$@"
fi
mount -t binfmt_misc binfmt_misc "$registry"
if [ ! -e "$registry/qemu-aarch64" ]; then
    cat "$rule" >"$registry/register"
    trap 'echo -1 >"$registry/qemu-aarch64"' EXIT
fi
"$@"
