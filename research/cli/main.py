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
from research.distributed.failures import STOPPED
from research.distributed.signals import handle_signals
from research.errors import InputError, disk_error_message
from research.storage.untrusted import printable


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
        f"{lines}\n\n`VERB --help` lists a verb's arguments."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb that `arguments` name (None: those of this process); returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    wants_help = not words or words[0] in ("-h", "--help", "help")
    if not wants_help and words[0] not in VERBS:
        from research.annotations import suggest

        print(f"sixfold: no verb {words[0]!r}{suggest(words[0], set(VERBS))}", file=sys.stderr)
        return 2
    try:
        if wants_help:
            print(usage(), flush=True)
            return 0 if words else 2
        with handle_signals():
            return run_verb(words[0], words[1:])
    except InputError as error:
        print(f"sixfold {words[0]}: {printable(str(error))}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"sixfold {words[0]}: {printable(str(error))}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        from research.distributed.failures import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print(f"sixfold {words[0]}: out of memory: {error or 'no message'}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the pipe (`| head`) has closed it. Without this the interpreter would write
        # to the pipe again when it exits, and print another error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"sixfold {words[0]}: {disk_error_message(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        by = f" by {error}" if str(error) else ""
        hint = "; the same command continues from the last checkpoint"
        print(f"\nstopped{by}" + hint * (words[0] in ("run", "study")), file=sys.stderr)
        return STOPPED
