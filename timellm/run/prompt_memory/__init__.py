"""The prompt memory: keys and values of prompts on disk, shared by all error trainings that read the same prompts.

A frozen causal model's keys and values of a prompt depend on its token ids and on the frozen weights alone, so whoever
needs a prompt first computes it, and everyone after reads it. `segment` is the format of the files and how they survive
a kill, `folder` finds prompts in them and keeps all of them within one size limit, `key` says which models share them,
`memory` stands between them and the network.
"""

from timellm.run.prompt_memory.folder import PromptFolder
from timellm.run.prompt_memory.memory import RememberedBatches, SharedPrompts, open_memory, uses_memory

__all__ = ["PromptFolder", "RememberedBatches", "SharedPrompts", "open_memory", "uses_memory"]
