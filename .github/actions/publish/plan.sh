#!/usr/bin/env bash
# What a release would change on the Hub; nothing is written there.
set -euo pipefail
# shellcheck source=lib.sh
source "$GITHUB_ACTION_PATH/lib.sh"

use_token
publication
code=0
annotated hubsplice publish "$FOLDER" --dry-run "${OPTIONS[@]}" >"$STATE/plan.json" || code=$?
if ((code == 5)); then
  # Too low a fidelity ends the check, and the report shows the plan all the same.
  hubsplice publish "$FOLDER" --dry-run "${OPTIONS[@]}" --allow-failed >"$STATE/plan.json" || true
fi
exit "$code"
