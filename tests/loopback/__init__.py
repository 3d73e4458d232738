"""A protocol double of the Hugging Face Hub on loopback: it is not the Hub.

`python -m tests.loopback --root DIR --transfer lfs|multipart|xet` serves it as a process of its
own, and `tests.loopback.client.LoopbackHub` starts, inspects and stops that process for a test.

Faithful, in that an unmodified huggingface_hub and hf_xet work against it:

- model repositories: create (409 with the url), delete, the first commit with the Hub's
  .gitattributes, public, private and gated access, and who may write;
- commits as NDJSON with a parent check (412), pull requests and their refs, tags (409), branches,
  history, trees, paths, model info with the card's metadata, pagination by Link headers;
- git's own ids for blobs, LFS pointers and trees; a commit's id is the hash of its contents;
- uploads by LFS basic, LFS multipart or Xet, with sizes and checksums verified on receipt, on
  another hostname than the API's; a commit that names an object the repository lacks is refused;
- the server extends .gitattributes when an LFS file matches no pattern of it;
- downloads with `X-Repo-Commit`, `ETag`, `X-Linked-*` and `X-Xet-Hash`, redirects and ranges;
- errors with `X-Error-Code` and `X-Error-Message`; expired tokens; trusted publishing by OIDC;
- jobs: what they can run on, starting one, which really runs its command, its stage, its log as
  server-sent events, cancelling; and buckets, from which they mount files;
- Xet with its CAS, which has its own notes in `tests.loopback.xet`, and server-side copies of Xet
  files between repositories.

Simplified:

- models and buckets only: no datasets or spaces, no search, settings, quotas or storage regions;
- all state but the stored bytes is in memory, and ends with the process;
- jobs have no container and no limits, and mount copies of buckets alone, which they don't write
  back; `uv run` runs this repository's code; there is no billing;
- buckets can't be read but by jobs, and files are not copied into them from elsewhere;
- regular files are served where they are asked for, and not from a resolve cache;
- metadata of cards is checked by the Hub's published rules as far as model releases need them;
- pull requests merge file by file, without merging text;
- over plain http the client can't tell an expired token from a missing repository by the URL, so
  that it reports the 401 itself;
- id tokens of the stand-in for GitHub are not signed: the process knows those it has issued.
"""

from __future__ import annotations
