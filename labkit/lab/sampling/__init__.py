"""What servers, host and load generator are doing while a run goes on, once a second by default."""

from labkit.lab.sampling.sampler import Sampler

__all__ = ["Sampler"]
