#!/usr/bin/env bash
# Collect the desktop pictures of seven Debian packages into a folder, as a data set of real photographs and drawings.
# The packages are downloaded and unpacked, not installed. Needs apt-get, dpkg and network; takes about a minute.
# Usage: benchmarks/fetch_pictures.sh FOLDER
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

packages="gnome-backgrounds mate-backgrounds plasma-workspace-wallpapers lomiri-wallpapers-16.04
          lomiri-wallpapers-20.04 ukui-wallpapers sway-backgrounds"
cd "$work"
# shellcheck disable=SC2086  # the list is meant to be split
apt-get -o APT::Sandbox::User="$(id -un)" download -q $packages
for file in ./*.deb; do dpkg -x "$file" unpacked; done

# One file a picture: the largest of each size series (plasma ships contents/images/1920x1080.jpg and so on), no
# symbolic links, screenshots or logos, no flat colours (under 10 kB), nothing twice.
find unpacked -type f -size +9k -regextype posix-extended -iregex '.*\.(jpe?g|png|webp)' -printf '%s\t%p\n' |
  grep -viE '/(screenshot|thumbnail|.*logo)[^/]*$|/icons/' | sort -rn |
  awk -F'\t' '{
    group = $2
    sub(/\/images(_dark)?\/[0-9]+x[0-9]+[^\/]*$/, "", group)       # sizes of one picture
    sub(/_?[0-9]+x[0-9]+(_Portrait)?\.[a-z]+$/, "", group)
    sub(/\.[a-z]+$/, "", group)
    if (!seen[group]++) print $2
  }' |
  while read -r path; do
    name=$(sed -E 's|^unpacked/usr/share/||; s|/contents/images(_dark)?||; s|^backgrounds/||; s|[/ ]+|-|g' <<<"$path")
    sum=$(sha256sum "$path" | cut -d' ' -f1)
    [ -e "sums/$sum" ] && continue
    mkdir -p sums && touch "sums/$sum"
    cmp -s "$path" "$folder/$name" || cp "$path" "$folder/$name"  # a sweep takes a file written anew for changed
  done
echo "$(find "$folder" -type f | wc -l) pictures in $folder"
