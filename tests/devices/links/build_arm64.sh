#!/usr/bin/env bash
# Build an aarch64 Debian with an SSH server and Python in a folder, once: build_arm64.sh FOLDER (6 minutes, 260 MB)
set -euo pipefail
folder="$1"
[ -e "$folder/complete" ] && exit 0
archive="$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk '$2 == "bookworm" { print $1; exit }')"
rm -rf "$folder"
mkdir -p "$folder"
"$(dirname "$0")/with_arm64.sh" mmdebstrap --architectures=arm64 --variant=minbase --mode=root \
    --include=openssh-server,python3,python3-venv,procps,mount --aptopt='APT::Install-Recommends "false"' \
    bookworm "$folder/root.tar" "$archive"
mkdir "$folder/root"
tar -xf "$folder/root.tar" -C "$folder/root" --exclude='./dev/*'
rm "$folder/root.tar"
touch "$folder/complete"
