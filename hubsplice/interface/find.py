"""Features that matter for a text, and what one of them does."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hubsplice.errors import RecipeError
from hubsplice.files.new_files import refuse_existing, require_folder_of
from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath, as_path

if TYPE_CHECKING:
    from hubsplice.explore.bench import Bench
    from hubsplice.explore.examples import Example
    from hubsplice.explore.found import Found
    from hubsplice.explore.show import ShownFeature

Texts = AnyPath | Sequence[str]
"""A file with one example a line, or the examples themselves."""


def find(
    sae: AnyPath | Sequence[AnyPath],
    *,
    model: AnyPath | None = None,
    revision: str | None = None,
    after_layer: int | None = None,
    text: Texts | None = None,
    prompts: Texts | None = None,
    positive: Texts | None = None,
    negative: Texts | None = None,
    chat: bool = False,
    pool: Literal["max", "mean"] = "max",
    top: int = 10,
    tokens: int = 8192,
    recipe: AnyPath | None = None,
    wish: Literal["more", "less"] = "more",
    force: bool = False,
    progress: ProgressChoice = True,
) -> Found:
    """Find the features that are of a text, or that tell two sets of texts apart.

    Give one of `text`, `prompts`, and `positive` with `negative`. Only the layers up to the SAEs
    run, and nothing is built.

    Args:
        sae: a folder, Neuronpedia's name, `release/id` of SAELens's registry or a Hub repository;
            or several of these.
        model: the base, a folder or a Hub id; the model that the SAE names where it is not given.
        revision: the base's commit, branch or tag.
        after_layer: where the SAE reads, if not where it was trained.
        text: plain text, which is compared with neutral text that comes with hubsplice.
        prompts: questions, put through the chat template and compared likewise; the template's own
            tokens don't count.
        positive: examples of what is looked for, compared with `negative`.
        negative: the same without it; better alike in all other ways.
        chat: whether `positive` and `negative` are questions, put through the chat template.
        pool: what an example of two sets counts by: its largest activation, or its mean.
        top: how many features are wanted.
        tokens: of the neutral text, at least 256; fewer are quicker.
        recipe: a file to write a recipe to, with the best feature; not written where none is
            found.
        wish: whether the recipe is to give more of the feature, or none of it.
        force: whether an existing recipe is overwritten.
        progress: as in `build`.

    Returns:
        The best features with their scores, and where each is most active.

    Raises:
        RecipeError: no such model, SAE or text, or too few examples.
        UnsupportedError: a model or an SAE that can't be spliced.
        CheckpointError: files are missing or damaged, or the Hub can't be reached.
        OutputError: the recipe can't be written.
    """
    one_set = {"text": text, "prompts": prompts}
    given = [f"--{name}" for name, value in one_set.items() if value is not None]
    if positive is not None or negative is not None:
        if positive is None or negative is None:
            missing = "--positive" if positive is None else "--negative"
            raise RecipeError(f"{missing}: missing; the two sets are compared with each other")
        given.append("--positive")
    if len(given) != 1:
        raise RecipeError(
            "give one of --text, --prompts, and --positive with --negative; found "
            f"{' and '.join(given) or 'none of them'}"
        )
    _require_counts(top, tokens)
    if recipe is not None:
        _require_new(as_path(recipe), force=force)
    texts = {
        name: _texts(value, f"--{name}")
        for name, value in (*one_set.items(), ("positive", positive), ("negative", negative))
        if value is not None
    }
    from hubsplice.explore import find as finding
    from hubsplice.explore.bench import opened
    from hubsplice.explore.examples import beginnings, neutral, plain, questions

    with (
        reporting(progress) as report,
        opened(_name(model), revision, _names(sae), after_layer, report) as bench,
    ):
        if positive is not None:
            of = questions if chat else beginnings
            sets = [of(texts[n], bench.tokenizer, f"--{n}") for n in ("positive", "negative")]
            found = finding.between(bench, *sets, pool=pool, top=top, progress=report)
        else:
            of = plain if prompts is None else questions
            (name,) = texts
            found = finding.against_neutral(
                bench,
                of(texts[name], bench.tokenizer, f"--{name}"),
                neutral(bench.tokenizer, tokens, 0),
                top=top,
                progress=report,
            )
        if recipe is not None and found.features:
            best = found.features[0]
            shown = next(iter(texts.values()))
            form = "user" if chat or prompts is not None else "text"
            _write(
                bench, best.sae, best.feature, best.largest, wish, as_path(recipe), after_layer,
                shown, form, doubt=found.doubt, force=force,
            )  # fmt: skip
    return found


def show(
    feature: int,
    sae: AnyPath,
    *,
    model: AnyPath | None = None,
    revision: str | None = None,
    after_layer: int | None = None,
    text: Texts | None = None,
    prompts: Texts | None = None,
    positive: Texts | None = None,
    chat: bool = False,
    top: int = 10,
    tokens: int = 8192,
    recipe: AnyPath | None = None,
    wish: Literal["more", "less"] = "more",
    force: bool = False,
    progress: ProgressChoice = True,
) -> ShownFeature:
    """Show where a feature is active, how strongly, and which tokens its direction promotes.

    Args:
        feature: its index in the SAE.
        sae: as in `find`.
        model: as in `find`.
        revision: as in `find`.
        after_layer: as in `find`.
        text: plain text to look for it in; text that comes with hubsplice where none is given.
        prompts: questions to look for it in, put through the chat template.
        positive: examples to look for it in, read as in `find`.
        chat: as in `find`.
        top: how many texts are shown.
        tokens: of the text that comes with hubsplice.
        recipe: a file to write a recipe to. Its strength counts in the largest activation on the
            text that is given; without one, a build measures that.
        wish: as in `find`.
        force: as in `find`.
        progress: as in `build`.

    Returns:
        The texts in which it is largest, its activations, the tokens, and its Neuronpedia page.

    Raises:
        RecipeError: no such model, SAE, feature or text; or a recipe is asked for, and the feature
            was never active.
        UnsupportedError: a model or an SAE that can't be spliced.
        CheckpointError: files are missing or damaged, or the Hub can't be reached.
        OutputError: the recipe can't be written.
    """
    options = {"--text": text, "--prompts": prompts, "--positive": positive}
    given = [option for option, value in options.items() if value is not None]
    if len(given) > 1:
        raise RecipeError(f"give one of {', '.join(options)}; found {' and '.join(given)}")
    _require_counts(top, tokens)
    if recipe is not None:
        _require_new(as_path(recipe), force=force)
    texts = [_texts(v, option) for option, v in options.items() if v is not None]
    from hubsplice.explore.bench import opened
    from hubsplice.explore.examples import beginnings, neutral, plain, questions
    from hubsplice.explore.show import show_feature

    with (
        reporting(progress) as report,
        opened(_name(model), revision, _names(sae), after_layer, report, feature=feature) as bench,
    ):
        examples: Sequence[Example]
        asked = prompts is not None or (positive is not None and chat)
        if not given:
            examples = neutral(bench.tokenizer, tokens, 0)
        else:
            of = questions if asked else plain if positive is None else beginnings
            examples = of(texts[0], bench.tokenizer, given[0])
        shown = show_feature(bench, feature, examples, top=top, progress=report)
        if recipe is not None:
            if not shown.active and wish == "more":
                raise RecipeError(
                    f"feature: {feature} was never active, so that no strength is known; give "
                    "text on which it is (--text)"
                )
            # In text of other kinds, other tokens may be what it is largest on.
            largest = shown.largest if given else None
            _write(
                bench, 0, feature, largest, wish, as_path(recipe), after_layer,
                texts[0] if given else (), "user" if asked else "text", force=force,
            )  # fmt: skip
    return shown


def _name(model: AnyPath | None) -> str | None:
    return None if model is None else fspath(model)


def _names(sae: AnyPath | Sequence[AnyPath]) -> list[str]:
    return [fspath(sae)] if isinstance(sae, str | PathLike) else [fspath(name) for name in sae]


def _texts(texts: Texts, option: str) -> Sequence[str]:
    if not isinstance(texts, str | PathLike):
        if not texts:
            raise RecipeError(f"{option}: no examples")
        return list(texts)
    from hubsplice.explore.examples import read_lines, read_passages

    path = as_path(texts)
    return read_passages(path, option) if option == "--text" else read_lines(path, option)


def _require_counts(top: int, tokens: int) -> None:
    for option, found, fewest in (("--top", top, 1), ("--tokens", tokens, 256)):
        if found < fewest:
            raise RecipeError(f"{option}: found {found}, expected at least {fewest}")


def _require_new(path: Path, *, force: bool) -> None:
    require_folder_of(path)
    refuse_existing([path], force=force)


def _write(
    bench: Bench,
    number: int,
    feature: int,
    largest: float | None,
    wish: Literal["more", "less"],
    path: Path,
    after_layer: int | None,
    texts: Sequence[str],
    form: str,
    *,
    doubt: str | None = None,
    force: bool,
) -> None:
    from hubsplice.explore.starter import write_starter

    write_starter(
        path,
        base_model=bench.base_model,
        revision=bench.revision,
        sae=bench.saes[number].source,
        after_layer=after_layer,
        feature=feature,
        largest=largest,
        wish=wish,
        prompts=({form: text} for text in texts if len(bench.tokenizer(text).input_ids) > 1),
        doubt=doubt,
        force=force,
    )
