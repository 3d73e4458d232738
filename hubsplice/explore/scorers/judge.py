"""A judge behind an OpenAI-compatible endpoint, such as vLLM's or llama.cpp's server."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from hubsplice.errors import HubspliceError, RecipeError, quoted
from hubsplice.explore.scorers.base import SCORERS, Scorable, Scorer

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_SECONDS = 120
_LARGEST = 1 << 20


@SCORERS.register("judge")
class Judge(Scorer):
    """The first number in what another model says of an answer, divided by `out_of`."""

    costly: ClassVar[bool] = True

    kind: Literal["judge"] = "judge"
    endpoint: str = Field(description="Up to `/v1`, such as http://localhost:8000/v1.")
    model: str = Field(min_length=1, description="The judge's name at the endpoint.")
    prompt: str = Field(
        min_length=1, description="What it is asked, with {prompt} and {answer} in it."
    )
    out_of: float = Field(10.0, gt=0, description="The best mark.")
    key_from: str | None = Field(
        None, description="The environment variable with the endpoint's key, if it needs one."
    )

    @field_validator("endpoint")
    @classmethod
    def _of_the_web(cls, endpoint: str) -> str:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"found {quoted(endpoint)}, expected http:// or https://")
        return endpoint.rstrip("/")

    @field_validator("prompt")
    @classmethod
    def _has_an_answer(cls, prompt: str) -> str:
        if "{answer}" not in prompt:
            raise ValueError("{answer} is missing")
        return prompt

    @property
    def name(self) -> str:
        """How a table calls it."""
        return f"judge {self.model}"

    def score(self, answer: Scorable) -> float | None:
        """The mark, from 0 to 1; None where the judge names no number.

        Raises:
            HubspliceError: the endpoint refuses, can't be reached, or answers something else.
        """
        # No format: braces in an answer are its own.
        asked = re.sub(
            r"\{(prompt|answer)\}",
            lambda found: answer.prompt if found[1] == "prompt" else answer.text,
            self.prompt,
        )
        found = _NUMBER.search(self._reply(asked))
        return None if found is None else min(max(float(found[0]) / self.out_of, 0.0), 1.0)

    def _reply(self, asked: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": asked}],
            "temperature": 0,
            "max_tokens": 256,
        }
        headers = {"Content-Type": "application/json"}
        if self.key_from is not None:
            key = os.environ.get(self.key_from)
            if not key:
                raise RecipeError(f"--score: judge: key_from: {self.key_from} is not set")
            headers["Authorization"] = f"Bearer {key}"
        url = f"{self.endpoint}/chat/completions"
        # The scheme was checked.
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
                content = json.loads(response.read(_LARGEST))["choices"][0]["message"]["content"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            refused = isinstance(error, urllib.error.HTTPError)
            said = error if refused else getattr(error, "reason", None) or error
            raise HubspliceError(f"judge: {url}: {said}") from None
        return str(content)
