"""What we compare with, as published: every function returns a `RunConfig`."""
