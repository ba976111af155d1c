"""The text that describes a window, and its tokens.

`tokenized_prompts` gives the token ids of all prompts of a split, computed once and kept on disk; `prompts_as_needed`
those of a split with very many windows, each computed before it is needed; `prompt_texts` gives the words alone;
`tokenising_cost` says beforehand what they take.
"""

from timellm.prompts.as_needed import PromptsAsNeeded, Stopped, prompts_as_needed
from timellm.prompts.cost import TokenisingCost, tokenising_cost
from timellm.prompts.dwt import check_wavelet_prompt
from timellm.prompts.text import prompt_texts
from timellm.prompts.tokens import PromptTokens, tokenized_prompts, tokenized_windows

__all__ = [
    "PromptTokens",
    "PromptsAsNeeded",
    "Stopped",
    "TokenisingCost",
    "check_wavelet_prompt",
    "prompt_texts",
    "prompts_as_needed",
    "tokenising_cost",
    "tokenized_prompts",
    "tokenized_windows",
]
