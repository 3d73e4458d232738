#!/usr/bin/env bash
# The job's summary, and the action's outputs; also of a run that failed.
set -euo pipefail
# shellcheck source=lib.sh
source "$GITHUB_ACTION_PATH/lib.sh"

annotated python -m hubsplice.github_actions summary --repo-id "$REPO_ID" --folder "$FOLDER" \
  --state "$STATE" >>"$GITHUB_STEP_SUMMARY"
annotated python -m hubsplice.github_actions outputs --folder "$FOLDER" --state "$STATE" \
  >>"$GITHUB_OUTPUT"
