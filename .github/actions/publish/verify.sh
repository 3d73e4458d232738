#!/usr/bin/env bash
# Download what was published, and compare every file with what was built.
set -euo pipefail
# shellcheck source=lib.sh
source "$GITHUB_ACTION_PATH/lib.sh"

use_publisher
# Nothing may come from what this machine has cached.
HF_HUB_CACHE="$STATE/downloads" HF_XET_CACHE="$STATE/chunks" annotated \
  python -m hubsplice.github_actions verify --state "$STATE" \
  --repo-id "$REPO_ID" --folder "$FOLDER" --download "$STATE/download"
rm -rf "$STATE/download" "$STATE/downloads" "$STATE/chunks"
