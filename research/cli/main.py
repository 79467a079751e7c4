"""The command line: `python -m research VERB ...`, also installed as `sixfold`.

This file picks the verb, has tyro read its arguments, and turns errors into messages and exit
codes. Exit codes: 0 done, 1 failed, 2 wrong usage or bad input, 75 stopped early and can be
continued. Only what a verb needs is imported, so `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import get_args

import tyro

from research.cli.verb import OverridingVerb, Verb
from research.cli.verbs import VERBS, WandbMode
from research.distributed.failures import FAILED, STOPPED
from research.distributed.launcher_environment import last_word
from research.distributed.signals import handle_signals
from research.errors import InputError, disk_error_message
from research.storage.untrusted import printable

# Our verbs for words that other programs have for them.
OTHER_WORDS = {
    **dict.fromkeys(("train", "fit", "resume", "continue", "start"), "run"),
    **dict.fromkeys(("test", "eval", "rank", "score"), "evaluate"),
    **dict.fromkeys(("predict", "infer", "serve"), "recommend"),
    **dict.fromkeys(("ls", "models", "baselines", "experiments", "runs", "corpora"), "list"),
    **dict.fromkeys(("preprocess", "download", "load"), "prepare"),
    **dict.fromkeys(("info", "inspect", "describe", "print"), "show"),
    **dict.fromkeys(("check", "validate", "lint"), "audit"),
    **dict.fromkeys(("diagnose", "env", "environment", "versions"), "doctor"),
    **dict.fromkeys(("compare", "ablation", "sweep"), "study"),
    **dict.fromkeys(("optimize", "optuna", "search", "hpo"), "tune"),
    **dict.fromkeys(("results", "table", "plot"), "report"),
    **dict.fromkeys(("upload", "wandb"), "sync"),
    **dict.fromkeys(("save", "convert"), "export"),
}


def with_wandb_mode(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--wandb` replaced by `--wandb=auto` where no mode follows it.

    Otherwise the next word, such as an override, would be taken for the mode.
    """
    following = [*arguments[1:], ""]
    return [
        "--wandb=auto" if word == "--wandb" and next_word not in get_args(WandbMode) else word
        for word, next_word in zip(arguments, following)
    ]


def run_verb(name: str, words: Sequence[str]) -> int:
    """Read the words after the verb `name`, and do its work; returns the exit code.

    Wrong words end the program with exit code 2, and `--help` with 0. `--help` after a target, as
    in `run EXPERIMENT --help`, is passed on as an override: it lists the fields of that target.
    """
    kind, program, verb_words = VERBS[name], f"sixfold {name}", with_wandb_mode(words)
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    verb: Verb
    overrides: list[str] = []
    if issubclass(kind, OverridingVerb):
        takes_help = bool(verb_words) and not verb_words[0].startswith("-")
        help_words = [word for word in verb_words if word in ("-h", "--help")] * takes_help
        without_help = [word for word in verb_words if word not in help_words]
        verb, unknown = tyro.cli(
            kind, prog=program, args=without_help, config=config, return_unknown_args=True
        )
        overrides = unknown + help_words
    else:
        verb = tyro.cli(kind, prog=program, args=verb_words, config=config)
    verb.check()
    return verb.execute(words, overrides)


def usage() -> str:
    """The text of `--help`: the list of verbs."""
    lines = "\n".join(f"  {name} {verb.LINE}" for name, verb in VERBS.items())
    return (
        "usage: sixfold VERB ...   (or: python -m research VERB ...)\n\n"
        f"{lines}\n\n`VERB --help` lists a verb's arguments; `--version` tells the version."
    )


def unknown_verb(word: str) -> str:
    """The message for a word that is no verb, with what may have been meant."""
    from research.annotations import suggest
    from research.studies.known_targets import near_targets

    if word.lower() in OTHER_WORDS:
        return f"no verb {word!r}; type `sixfold {OTHER_WORDS[word.lower()]}`"
    if "." in word:
        meant = [
            known for known in near_targets(word, "run") if word in (known.target, known.module)
        ]
        if meant:
            return f"no verb {word!r}; type `sixfold {meant[0].verb} {word}`"
    return f"no verb {word!r}{suggest(word.lower(), {*VERBS, '--help', '--version'})}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb that `arguments` name (None: those of this process); returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            code = run_words(words)
        except SystemExit as ended:
            # tyro ends the program itself for `--help` and for wrong words.
            code = int(ended.code or 0)
        if (line := last_word(code)) is not None:
            print(line, file=sys.stderr)
    except BrokenPipeError:
        # The message of another error could not be printed.
        code = FAILED
    is_closed = end_closed_pipes()
    return code or FAILED * is_closed


def run_words(words: Sequence[str]) -> int:
    """Run the verb that the words of a command line name, and word its errors."""
    first = words[0] if words else ""
    wants_help = first in ("", "-h", "--help", "help")
    wants_version = first in ("-V", "--version", "version")
    if not (wants_help or wants_version) and first not in VERBS:
        print(f"sixfold: {printable(unknown_verb(first))}", file=sys.stderr)
        return 2
    try:
        if wants_help:
            print(usage())
            return 0 if words else 2
        if wants_version:
            from research.cli.version import version_line

            print(version_line())
            return 0
        with handle_signals():
            return run_verb(first, words[1:])
    except InputError as error:
        print(f"sixfold {first}: {printable(str(error))}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"sixfold {first}: {printable(str(error))}", file=sys.stderr)
        return FAILED
    except (MemoryError, RuntimeError) as error:
        from research.distributed.failures import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print(f"sixfold {first}: out of memory: {error or 'no message'}", file=sys.stderr)
        return FAILED
    except OSError as error:
        # Errors of standard output name no file; `main` knows what to do about its pipe.
        if not isinstance(error, BrokenPipeError) or error.filename is not None:
            print(f"sixfold {first}: {disk_error_message(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as error:
        by = f" by {error}" if str(error) else ""
        hint = "; the same command continues from the last checkpoint"
        print(f"\nstopped{by}" + hint * (first in ("run", "study", "tune")), file=sys.stderr)
        return STOPPED


def end_closed_pipes() -> bool:
    """Write what is buffered; returns whether a reader (`| head`) has closed its end of a pipe.

    The rest then goes nowhere. Otherwise the interpreter would try to write it when it exits, and
    print an error of its own.
    """
    is_closed = False
    # Either is None in a process that was started without it.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            is_closed = True
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
    return is_closed
