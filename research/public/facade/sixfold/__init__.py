"""Sixfold from Python: `import sixfold as sf`; see `research.public.names` for what it offers.

    corpus = sf.prepare(frame, user="customer", item="sku", time="bought_at")
    config = sf.change(sf.config("sasrec.full_softmax"), {"stages.0.epochs": 20})
    run = sf.train(config, corpus)
    run.metrics()

An installed package has a notebook beside it, share/sixfold/examples/own_data.ipynb.

Importing it loads neither torch nor pandas; the first use of a name does. This package holds names
alone, and no class or state of its own: everything is what `research` defines.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.public.names import *  # noqa: F403
else:

    def __getattr__(name):
        """What `research.public.names` offers under a name."""
        if name.startswith("__") and name != "__all__":
            # Python and its tools ask every module for names such as `__path__`.
            raise AttributeError(f"module 'sixfold' has no attribute {name!r}")
        from research.annotations import suggest
        from research.public import names

        if name == "__all__":
            return names.__all__
        if name not in names.__all__:
            raise AttributeError(
                f"module 'sixfold' has no attribute {name!r}{suggest(name, set(names.__all__))}"
            )
        return getattr(names, name)

    def __dir__():
        """The names that it offers."""
        from research.public import names

        return sorted(names.__all__)
