"""Search spaces: which values of which knobs are worth trying, loaded from ``search_spaces/``."""

from fa4gen.space.load import list_spaces, load_space, space_for
from fa4gen.space.space import DefaultRow, Knob, SearchSpace

__all__ = ["DefaultRow", "Knob", "SearchSpace", "list_spaces", "load_space", "space_for"]
