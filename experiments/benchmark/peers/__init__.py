"""The peers: environments of their own, and scripts that run inside these.

A script here imports its peer, and of this project only the files that say they may be imported.
"""
