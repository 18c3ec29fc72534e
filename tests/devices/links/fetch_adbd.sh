#!/usr/bin/env bash
# Unpack Debian's adbd, with the libraries of its own release, into a folder: fetch_adbd.sh FOLDER
# Nothing is installed and nothing is started. Needs apt on Debian, and its archive's keyring.
set -euo pipefail
folder="$1"
[ -e "$folder/complete" ] && exit 0
mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/root"
archive="$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk '$2 !~ /security|updates|backports/ { print $1; exit }')"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive trixie main" >"$folder/sources.list"
: >"$folder/status"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$folder/lists" -o "Dir::State::Status=$folder/status" -o "Dir::Cache=$folder/cache"
    -o Dir::Etc::PreferencesParts=/dev/null -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
"${apt[@]}" update
"${apt[@]}" install -y --download-only --no-install-recommends adbd >/dev/null
for package in "$folder"/cache/archives/*.deb; do
    dpkg -x "$package" "$folder/root"
done
rm -rf "$folder/lists" "$folder/cache"
touch "$folder/complete"
