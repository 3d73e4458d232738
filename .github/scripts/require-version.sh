#!/usr/bin/env bash
# require-version.sh DIST TAG: the one wheel and the one source distribution are those of the tag.
set -euo pipefail
dist="$1" tag="$2"
for file in "hubsplice-${tag#v}-py3-none-any.whl" "hubsplice-${tag#v}.tar.gz"; do
  if [[ ! -f "$dist/$file" ]]; then
    echo "::error title=Release::the tag is $tag, and the build has no $file: $(ls "$dist" | tr '\n' ' ')"
    exit 1
  fi
done
if (($(ls "$dist" | wc -l) != 2)); then
  echo "::error title=Release::expected two files, found: $(ls "$dist" | tr '\n' ' ')"
  exit 1
fi
