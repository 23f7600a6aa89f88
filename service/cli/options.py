"""The options that describe a request, shared by the commands that take one."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer


def request_of(
    class_: Annotated[str | None, typer.Option("--class", help="what to draw: a class name or index")] = None,
    classes: Annotated[str | None, typer.Option(help="many classes, comma-separated: an image of each")] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="what to draw, in words; several: an image of each, or one for each of the classes"),
    ] = None,
    per_condition: Annotated[int, typer.Option(help="images of each of many classes or prompts")] = 1,
    allocation: Annotated[
        str, typer.Option(help="how many conditions share the budget: uniform, or adaptive (where it gains most)")
    ] = "uniform",
    nfe: Annotated[int | None, typer.Option(help="budget in function evaluations [default: 2000]")] = None,
    forwards: Annotated[int | None, typer.Option(help="budget in network rows")] = None,
    gradients: Annotated[int | None, typer.Option(help="cap on gradients of the verifier that guides")] = None,
    seconds: Annotated[float | None, typer.Option(help="end after so many seconds, with the best so far")] = None,
    model: Annotated[str, typer.Option(help="model to search over")] = "glyphs",
    verifier: Annotated[
        list[str] | None, typer.Option(help="what selects; several: an ensemble [default: classifier]")
    ] = None,
    rule: Annotated[str, typer.Option(help="how an ensemble's scores become one: rank or zscore")] = "rank",
    auditor: Annotated[list[str] | None, typer.Option(help="verifier that says what it thinks of the winners")] = None,
    guide: Annotated[
        str | None,
        typer.Option(help="verifier whose gradient every trajectory follows, or off [default: the algorithm's choice]"),
    ] = None,
    guide_option: Annotated[
        list[str] | None, typer.Option(help="a setting of the guide, NAME=VALUE: strength, interval, every, noise, ...")
    ] = None,
    search: Annotated[str, typer.Option(help="search algorithm")] = "auto",
    option: Annotated[list[str] | None, typer.Option(help="an option of the algorithm, NAME=VALUE")] = None,
    method: Annotated[str | None, typer.Option(help="sampling method [default: one that suits]")] = None,
    steps: Annotated[int | None, typer.Option(help="sampling steps of a candidate [default: the model's]")] = None,
    final_steps: Annotated[int | None, typer.Option(help="sampling steps of the winner's re-generation")] = None,
    guidance: Annotated[float | None, typer.Option(help="guidance scale; 1 is unguided [default: the model's]")] = None,
    sampler: Annotated[list[str] | None, typer.Option(help="another setting of the sampler, NAME=VALUE")] = None,
    target: Annotated[
        float | None, typer.Option(help="end when an image scores as much, and show how far it is; for one condition")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="of the NFE by which the target is reached [default: 0.95]")
    ] = None,
    stop_score: Annotated[
        float | None, typer.Option(help="end when an image scores as much; of many conditions, when all do")
    ] = None,
    patience: Annotated[int | None, typer.Option(help="end after so many NFE without a better candidate")] = None,
    num_images: Annotated[int, typer.Option(help="how many of the best to keep")] = 1,
    diversity: Annotated[
        float, typer.Option(help="how much it counts that they differ, from 0 (the best by score) to 1")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="seed of every random draw")] = 0,
    priority: Annotated[float, typer.Option(help="share of the samplers in relation to other jobs', 0.1 to 10")] = 1.0,
) -> dict[str, Any]:
    """The body of `POST /generate`."""
    if confidence is not None and target is None:
        raise typer.BadParameter("--confidence goes with --target")
    aim = None if target is None else _given({"score": target, "confidence": confidence})
    sampling = {"method": method, "steps": steps, "guidance": guidance, "final_steps": final_steps}
    return {
        "model": model,
        "condition": _condition(class_, classes.split(",") if classes else [], prompt or []),
        "per_condition": per_condition,
        "allocation": allocation,
        "num_images": num_images,
        "diversity": diversity,
        "seed": seed,
        "budget": _given(
            {
                "nfe": nfe if nfe or forwards else 2000,
                "forwards": forwards,
                "gradients": gradients,
                "seconds": seconds,
            }
        ),
        "verifier": _verifier(verifier or ["classifier"], rule),
        "auditors": auditor or [],
        "guide": _guide(guide, guide_option or []),
        "search": {"algorithm": search} | dict(_option(text) for text in option or ()),
        "sampler": _given(sampling) | dict(_option(text) for text in sampler or ()),
        "stop": _given({"score": stop_score, "target": aim, "patience_nfe": patience}),
        "priority": priority,
    }


def takes_request(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first argument is a request: it gets the options of `request_of` before its own."""
    options = inspect.signature(request_of, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        asked = request_of(**{name: given.pop(name) for name in options})
        command(asked, **given)

    wrapped.__signature__ = inspect.Signature([*options.values(), *own])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in (*options.values(), *own)}
    return wrapped


def _condition(class_: str | None, classes: list[str], prompts: list[str]) -> dict[str, Any]:
    if classes and prompts:
        if len(classes) != len(prompts):
            raise typer.BadParameter(f"{len(prompts)} --prompt for {len(classes)} --classes: one for each, or none")
        many = [{"class": one, "prompt": prompt} for one, prompt in zip(classes, prompts, strict=True)]
        return _given({"class": class_, "many": many})
    several = {"prompts": prompts} if len(prompts) > 1 else {"prompt": prompts[0] if prompts else None}
    return _given({"class": class_, "classes": classes or None} | several)


def _verifier(names: list[str], rule: str) -> str | dict[str, Any]:
    return names[0] if len(names) == 1 else {"name": "ensemble", "members": names, "rule": rule}


def _guide(verifier: str | None, options: list[str]) -> str | dict[str, Any] | None:
    if verifier == "off":
        if options:
            raise typer.BadParameter("--guide-option does not go with --guide off")
        return verifier
    return _given({"verifier": verifier}) | dict(_option(text) for text in options) or None


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _option(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
