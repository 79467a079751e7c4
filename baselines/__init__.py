"""Published models to compare with; every recipe is a function that returns a `RunConfig`."""
